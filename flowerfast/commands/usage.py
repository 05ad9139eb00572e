"""Options that stand for settings, and one line for a command line that means nothing."""

import sys
from typing import Any

from flowerfast.commands.output import fail
from flowerfast.commands.speech import SPEECH
from flowerfast.nearest import nearest, nearest_keys

SHORT = {
    "--epochs": "train.epochs",
    "--model": "model.name",
    "--lr": "train.lr",
    "--batch-size": "train.batch_size",
    "--image-size": "data.image_size",
    "--seed": "train.seed",
    "--device": "train.device",
    "--classes": "data.classes",
}
"""Options that stand for a setting."""


def explain_usage(error: Any) -> None:
    """One line for what the command line cannot mean; without arguments, the help."""
    SPEECH.is_json = "--log-json" in sys.argv  # which was not reached
    context, message = error.ctx, error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError" or context is None:
        error.show()
        return
    option = getattr(error, "option_name", None)
    hint = f"; see flowerfast {context.command.name} --help" if context.parent else "; see flowerfast --help"
    if option is not None and message.startswith("No such option"):
        message, hint = f"No such option: {option}", _like_option(option, context.command) or hint
    fail(f"flowerfast: error: {message.rstrip('.')}{hint}")


def _like_option(option: str, command: Any) -> str | None:
    """What a misspelt option may have meant: one of the command's own, or a setting."""
    from flowerfast.config import known_keys

    own = [name for parameter in command.params for name in parameter.opts if name.startswith("--")]
    near = nearest(option, own, count=1)
    keys = nearest_keys(option.strip("-").replace("-", "_"), [*known_keys()])
    shorts = [short for short, key in SHORT.items() if key in keys[:1] and short in own]
    if shorts and not near:
        near = shorts
    if keys and not near and "--set" in own:
        return f"; use --set {keys[0]}=..."
    return f"; use {near[0]}" if near else None
