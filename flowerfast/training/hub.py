"""Files of the Hugging Face hub: from its cache, else fetched, in bounded time; one line where that fails."""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    HfFileMetadata,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging

from flowerfast.errors import RunFailed, UserError, WriteFailed, one_line
from flowerfast.files import writing

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TOO_MANY_REQUESTS = 429


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        place: OWNER/NAME, or OWNER/NAME@REVISION.
        names: of the file; the first that is there is taken.
        asked: the setting that wants it, with its value: how an error begins.
        ways_out: what can be done without the hub: how an error ends.
    """

    place: str
    names: tuple[str, ...]
    asked: str
    ways_out: str

    def fetch(self, say: Callable[[str], None] = lambda _: None) -> Path:
        """Where the file lies. One that was fetched before is taken without asking the hub again.

        The hub is asked once whether it has the file, with a timeout (`HF_HUB_ETAG_TIMEOUT` seconds, 10), for
        its client would go on asking for minutes. `say` is told before a file is fetched.

        Raises UserError where the hub cannot be reached or has no such file, RunFailed where it fails or the
        file does not arrive as it is there; nothing of it is kept then.
        """
        try:
            kept = self._kept()
            if kept is not None:
                return kept
            name, about = self._find()
        except HFValidationError as error:
            raise self._wrong(one_line(error)) from error
        size = f", {about.size / 1e6:,.1f} MB" if about.size is not None else ""
        say(f"fetching {name} of {self.place} from {constants.ENDPOINT}{size}")
        file = self._download(name, about.size or 0)
        if about.etag is not None and _SHA256.fullmatch(about.etag) and _sha256(file) != about.etag:
            file.resolve().unlink(missing_ok=True)
            file.unlink(missing_ok=True)
            raise self._failed(f"{name} of {self.place} arrived damaged, its checksum does not fit")
        return file

    @property
    def _parts(self) -> tuple[str, str | None]:
        repo, _, revision = self.place.partition("@")
        return repo, revision or None

    def _kept(self) -> Path | None:
        repo, revision = self._parts
        found = (try_to_load_from_cache(repo, name, revision=revision) for name in self.names)
        return next((Path(file) for file in found if isinstance(file, str)), None)

    def _find(self) -> tuple[str, HfFileMetadata]:
        """The first of the names that the repository has, and what the hub says of that file."""
        repo, revision = self._parts
        for name in self.names:
            try:
                about = get_hf_file_metadata(
                    hf_hub_url(repo, name, revision=revision), timeout=constants.HF_HUB_ETAG_TIMEOUT
                )
            except EntryNotFoundError:
                continue
            except HFValidationError:
                raise
            except HfHubHTTPError as error:
                status = error.response.status_code
                if status == _TOO_MANY_REQUESTS or status >= 500:
                    raise self._failed(f"{constants.ENDPOINT} answers HTTP {status} for it") from error
                missing = isinstance(error, RepositoryNotFoundError) or status in (401, 404)
                what = "no such repository or revision, or none that may be read" if missing else "refused"
                raise self._wrong(f"{what} (HTTP {status})") from error
            except Exception as error:  # which kind, depends on the version of the hub's client
                raise UserError(
                    f"{self.asked}: cannot reach {constants.ENDPOINT} for {self.place} ({one_line(error)}); "
                    f"{self.ways_out}"
                ) from error
            if about.commit_hash is None or about.etag is None:
                raise self._wrong("the answer is not that of a hub; see to the proxy, or to HF_ENDPOINT")
            return name, about
        raise self._wrong(f"no {' or '.join(self.names)} there")

    def _download(self, name: str, size: int) -> Path:
        repo, revision = self._parts
        try:
            with _without_warnings(), writing(Path(constants.HF_HUB_CACHE), size):
                return Path(hf_hub_download(repo, name, revision=revision))
        except WriteFailed as error:
            raise RunFailed(error.line("try again")) from error
        except Exception as error:  # as above
            raise self._failed(f"{name} of {self.place} did not arrive whole ({one_line(error)})") from error

    def _wrong(self, what: str) -> UserError:
        return UserError(f"{self.asked}: {constants.ENDPOINT}/{self.place}: {what}; {self.ways_out}")

    def _failed(self, what: str) -> RunFailed:
        return RunFailed(f"{self.asked}: {what}; nothing of it is kept: try again, or {self.ways_out}")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Within, the hub's client says nothing of what it tries again: what came of it is one line."""
    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
