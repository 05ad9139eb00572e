"""An export to the Hugging Face hub, or one line that says why not."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from flowerfast.errors import RunFailed, UserError, one_line
from flowerfast.machine import ignore_warnings, within

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_WRONG = (401, 403, 404)
_PATIENCE = 30.0  # seconds for an answer: the hub's client may wait for one for ever
_SLOWEST = 100_000  # bytes/s of an upload


def check_repository(repository: str) -> None:
    """Raise UserError for what is no name of a repository."""
    if not _NAME.fullmatch(repository) or len(repository) > 96 or re.search(r"--|\.\.|\.git$", repository):
        raise UserError(f"--push {repository}: give OWNER/NAME, as alice/flowers")


def check_hub(repository: str) -> None:
    """Raise UserError where the hub cannot be reached or does not know the user: before the work."""
    from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, FileMetadataError, HfHubHTTPError

    with _explained(repository, f"drop --push, and upload the folder later: hf upload {repository} FOLDER"):
        with suppress(HfHubHTTPError, EntryNotFoundError, FileMetadataError):
            # Whatever the answer: it is known where nothing answers before there is a thread to leave behind.
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            get_hf_file_metadata(hf_hub_url(repository, "README.md"), timeout=timeout)
        within(_PATIENCE, constants.ENDPOINT, HfApi().whoami)


def push(folder: Path, repository: str, public: bool) -> str:
    """Upload a folder as one commit to a repository, made if need be, private but for `public`; its address.

    Raises UserError where the hub cannot be reached or refuses, RunFailed where it fails.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging

    if not sys.stderr.isatty():
        disable_progress_bars()
    ignore_warnings(r"huggingface_hub\..*")  # of what it thinks of the card
    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        later = f"{folder} is whole: upload it later, hf upload {repository} {folder}"
        with _explained(repository, later, begun=True):
            api, hub = HfApi(), constants.ENDPOINT
            create = partial(api.create_repo, repository, private=not public, exist_ok=True)
            address = str(within(_PATIENCE, hub, create))
            message = f"Upload {folder.name} with flowerfast"
            upload = partial(
                api.upload_folder, repo_id=repository, folder_path=folder, commit_message=message
            )
            size = sum(file.stat().st_size for file in folder.iterdir())
            within(_PATIENCE + size / _SLOWEST, hub, upload)
    finally:
        hub_logging.set_verbosity(level)
    return address


@contextmanager
def _explained(repository: str, way_out: str, begun: bool = False) -> Iterator[None]:
    """Within, what the hub's client raises is one line; RunFailed where the upload had `begun`."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    asked = f"--push {repository}"
    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError(
            f"{asked}: no token of {constants.ENDPOINT} on this machine; run hf auth login, or set HF_TOKEN"
        ) from None
    except HFValidationError as error:
        raise UserError(f"{asked}: {one_line(error)}; give OWNER/NAME, as alice/flowers") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        said = f"{asked}: {constants.ENDPOINT} answers HTTP {status}"
        if status in _WRONG:
            raise UserError(f"{said}: see to the token and to whose OWNER is; {way_out}") from error
        raise RunFailed(f"{said}; {way_out}") from error
    except Exception as error:  # of no network: which kind, depends on the version of the hub's client
        why = f"{constants.ENDPOINT} ({one_line(_first(error))}); {way_out}"
        if begun:
            raise RunFailed(f"{asked}: the upload failed: {why}") from error
        raise UserError(f"{asked}: cannot reach {why}") from error


def _first(error: BaseException) -> BaseException:
    """What was wrong first."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
