"""The model card: README.md in the form of the Hugging Face hub, front matter in YAML, then Markdown."""

import re
from pathlib import Path
from typing import Any

import jinja2
import yaml

from flowerfast.config import Config
from flowerfast.errors import printable
from flowerfast.exporting.check import Checked
from flowerfast.exporting.onnx_file import OPSET
from flowerfast.exporting.source import Source
from flowerfast.machine import versions

_MOST_CLASSES = 200  # rows of the table
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~&$:@])")
_NOT_SHOWN = {"weights", "parent", "device"}
"""Where something lies on this machine is nobody else's business."""
_OF_DATA = {"image_size", "exif"}


def model_card(source: Source, form: str, checked: Checked | None) -> str:
    """Text of README.md.

    Args:
        source: the run.
        form: "onnx" or "safetensors".
        checked: what an ONNX file was checked on.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flowerfast.exporting"),
        autoescape=False,  # Markdown is no HTML: names pass `escaped`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(md=escaped, percent="{:.1%}".format, thousands="{:,}".format)
    environment.globals["interval"] = _interval
    name = printable(source.home.resolve().name)
    front = yaml.safe_dump(_front_matter(source, form, name), sort_keys=False)
    return environment.get_template("card.md.j2").render(
        front=front,
        name=name,
        form=form,
        model=source.model,
        architecture=source.described.architecture,
        summary=source.summary,
        missing=source.missing,
        classes=source.model.classes[:_MOST_CLASSES],
        scores=source.summary.per_class[:_MOST_CLASSES] if source.summary else [],
        all_classes=len(source.model.classes),
        resize=round(source.model.image_size / source.model.crop_pct),
        settings=_settings(source.config) if source.config else "",
        checked=checked,
        version=versions().get("flowerfast", ""),
        opset=OPSET,
    )


def escaped(text: str) -> str:
    """A name as Markdown that shows it and nothing else, in one line."""
    return _SPECIAL.sub(r"\\\1", printable(text))


def _interval(ends: tuple[float, float] | None) -> str:
    return "not known" if ends is None else f"{ends[0]:.1%} to {ends[1]:.1%}"


def _front_matter(source: Source, form: str, name: str) -> dict[str, Any]:
    summary = source.summary
    front: dict[str, Any] = {
        "library_name": "onnx" if form == "onnx" else "timm",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "flowerfast", *(["timm"] if form != "onnx" else [])],
    }
    base = _base_model(source)
    if base is not None:
        front["base_model"] = base
    if summary is not None:
        metric, figure, tested = "accuracy", summary.best_val_acc, summary.test_acc
        if summary.best_val_map is not None:
            metric, figure, tested = "mean_average_precision", summary.best_val_map, summary.test_map
        half = "validation"
        if tested is not None:
            figure, half = tested, "test"
        front["metrics"] = [metric]
        photos = Path(source.config.data.path or "").name if source.config else ""
        result = {
            "task": {"type": "image-classification"},
            "dataset": {"type": "imagefolder", "name": printable(photos) or "photos", "split": half},
            "metrics": [{"type": metric, "value": round(figure, 4)}],
        }
        front["model-index"] = [{"name": name, "results": [result]}]
    return front


def _base_model(source: Source) -> str | None:
    """Repository of the hub whose weights the run began with; None: it began with others."""
    if source.config is None or not source.config.model.pretrained or source.config.model.weights:
        return None
    named = source.config.model.name
    if named.startswith("hf-hub:"):
        return named.removeprefix("hf-hub:").partition("@")[0]
    tag = (source.described.pretrained_cfg.model_extra or {}).get("tag")
    if ":" in named or not isinstance(tag, str) or not re.fullmatch(r"\w+", tag):
        return None
    return f"timm/{source.described.architecture}.{tag}"


def _settings(config: Config) -> str:
    """YAML of the settings that say how the model was made, without places on this machine."""
    sections = config.model_dump(mode="json", include={"model", "data", "augment", "train", "eval"})
    kept = {
        section: {
            key: value
            for key, value in values.items()
            if (key in _OF_DATA if section == "data" else key not in _NOT_SHOWN)
        }
        for section, values in sections.items()
    }
    if config.model.name.startswith("local-dir:"):
        kept["model"]["name"] = "local-dir:FOLDER"
    return yaml.safe_dump(kept, sort_keys=False).rstrip()
