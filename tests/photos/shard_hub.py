"""A hub on this machine with shards in a data set, of which it gives ranges as the Hugging Face hub does."""

import hashlib
import json
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.training.local_hub import COMMIT, Hub, serving

REPOSITORY = "ann/flowers"


class ShardHub(Hub):
    """Serves the files of a folder as those of the data set REPOSITORY.

    Attributes:
        folder: of the files.
        asked: paths, in their order.
        status: of all answers, where it is not None; 0: there is none.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(_Handler)
        self.folder, self.asked = folder, list[str]()
        self.status: int | None = None


def shard_hub(folder: Path) -> AbstractContextManager[ShardHub]:
    """A hub for as long as the block takes."""
    return serving(ShardHub(folder))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ShardHub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        hub.asked.append(path)
        api, content = f"/api/datasets/{REPOSITORY}", f"/datasets/{REPOSITORY}/resolve/main/"
        if hub.status == 0:
            hub.over.wait()
            self.close_connection = True
        elif hub.status is not None:
            self._send(hub.status, b"{}")
        elif path in (api, f"{api}/revision/main"):
            self._send(200, json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": []}).encode())
        elif path.startswith(f"{api}/tree/main"):
            self._list(path.removeprefix(f"{api}/tree/main").strip("/"))
        elif path.startswith(content) and (hub.folder / path.removeprefix(content)).is_file():
            whole = (hub.folder / path.removeprefix(content)).read_bytes()
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            self._send(206, whole[int(first) : int(last) + 1])
        else:
            code = "EntryNotFound" if REPOSITORY in path else "RepoNotFound"
            self._send(404, b"{}", {"X-Error-Code": code})

    def _list(self, below: str) -> None:
        files = [file for file in sorted((self.server.folder / below).glob("*")) if file.is_file()]
        rows = [
            {
                "type": "file",
                "path": f"{below}/{file.name}".strip("/"),
                "size": file.stat().st_size,
                "oid": hashlib.sha1(file.read_bytes()).hexdigest(),
            }
            for file in files
        ]
        if rows:
            self._send(200, json.dumps(rows).encode())
        else:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _send(self, status: int, content: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
