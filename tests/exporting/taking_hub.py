"""A hub on this machine to which files are uploaded, as by its protocol for large files."""

import base64
import json
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.training.local_hub import Hub, serving

TOKEN = "hf_made_for_a_test"
COMMIT = "7" * 40


class TakingHub(Hub):
    """Takes commits of whoever has the token.

    Attributes:
        files: content by name, of what was committed.
        made: what was asked for of each new repository.
        asked: `METHOD path`, in their order.
        fault: path that is answered with a status, or None.
        silent: to requests for paths with this in it there is never an answer; None: to all there is.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.made: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.fault: tuple[str, int] | None = None
        self.silent: str | None = None


def taking_hub() -> AbstractContextManager[TakingHub]:
    """A hub for as long as the block takes."""
    return serving(TakingHub())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: TakingHub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"")

    def do_PUT(self) -> None:
        self._answer(self._body())

    def do_POST(self) -> None:
        self._answer(self._body())

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, body: bytes) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        hub.asked.append(f"{self.command} {path}")
        if hub.silent is not None and hub.silent in path:
            hub.over.wait()
            self._send(403, {})  # which its client does not ask again
        elif hub.fault is not None and hub.fault[0] in path:
            self._send(hub.fault[1], {"error": "as the test wants it"})
        elif self.command == "HEAD":
            self._send(404, {})
        elif self.command == "PUT":
            hub.large[path.rpartition("/")[2]] = body
            self._send(200, {})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}" and "validate-yaml" not in path:
            self._send(401, {"error": "who are you"})
        else:
            self._take(path, body)

    def _take(self, path: str, body: bytes) -> None:
        hub = self.server
        if path == "/api/whoami-v2":
            self._send(200, {"name": "alice", "type": "user"})
        elif path == "/api/repos/create":
            hub.made.append(json.loads(body))
            self._send(200, {"url": f"{hub.address}/alice/flowers"})
        elif path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": [{"message": "no license"}]})
        elif "/preupload/" in path:
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = ["regular" if name.endswith((".md", ".json")) else "lfs" for name in files]
            told = zip(files, modes, strict=True)
            self._send(200, {"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in told]})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            upload = [
                {**one, "actions": {"upload": {"href": f"{hub.address}/put/{one['oid']}"}}} for one in objects
            ]
            self._send(200, {"transfer": "basic", "objects": upload})
        elif "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.files[value["path"]] = hub.large[value["oid"]]
            self._send(
                200, {"commitUrl": f"{hub.address}/alice/flowers/commit/{COMMIT}", "commitOid": COMMIT}
            )
        else:
            self._send(404, {"error": path})

    def _send(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
