"""nginx on localhost with TLS by an authority made for it: what shards are mostly behind."""

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_CONF = """
daemon off;
worker_processes 1;
{user}
pid {place}/pid;
error_log {place}/errors;
events {{ worker_connections 256; }}
http {{
    log_format asked '$connection $status $request_uri';
    access_log {place}/asked asked;
    client_body_temp_path {place}/1; proxy_temp_path {place}/2; fastcgi_temp_path {place}/3;
    uwsgi_temp_path {place}/4; scgi_temp_path {place}/5;
    gzip on; gzip_types *; gzip_min_length 1;
    limit_req_zone $binary_remote_addr zone=few:1m rate=4r/s;
    limit_req_status 503;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {place}/server.pem;
        ssl_certificate_key {place}/server.key;
        root {folder};
        location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
        location /round/ {{ return 302 $request_uri; }}
        location /busy/ {{ limit_req zone=few burst=1 nodelay; alias {folder}/; }}
        location /short/ {{ keepalive_requests 3; alias {folder}/; }}
        location /whole/ {{ max_ranges 0; alias {folder}/; }}
        location /down/ {{ return 503; }}
        location /denied/ {{ return 403; }}
        location /locked/ {{ auth_basic "shards"; auth_basic_user_file {place}/users; alias {folder}/; }}
    }}
}}
"""
USER, PASSWORD = "ann", "made-for-a-test"


@dataclass(frozen=True)
class Nginx:
    """What serves a folder, gzip on for whatever takes it.

    Below `url` lie besides, each with the same folder in it: `moved` (redirects there), `round` (redirects
    without end), `busy` (503 to more than so many requests a second), `short` (ends a connection after three
    requests), `whole` (gives no ranges), `down`, `denied`, and `locked` to all but USER.

    Attributes:
        url: without a slash at its end.
        authority: file of the certificate by which it is trusted.
        log: file in which a request stands by connection, status and path.
    """

    url: str
    authority: Path
    log: Path

    def asked(self) -> list[tuple[str, int, str]]:
        """(connection, status, path) of all requests."""
        rows = (line.split(" ", 2) for line in self.log.read_text().splitlines())
        return [(connection, int(status), path) for connection, status, path in rows]

    def trusted(self) -> ssl.SSLContext:
        """What trusts it alone."""
        return ssl.create_default_context(cafile=str(self.authority))


@contextmanager
def nginx(folder: Path, place: Path) -> Iterator[Nginx]:
    """A server of a folder for as long as the block takes; `place` is an empty folder of its own."""
    if shutil.which("nginx") is None or shutil.which("openssl") is None:
        pytest.skip("needs nginx and openssl")
    _certify(place)
    (place / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    user = "user root;" if os.getuid() == 0 else ""  # else its workers could not read what is the tests' own
    conf = place / "nginx.conf"
    conf.write_text(_CONF.format(place=place, folder=folder, port=port, user=user))
    with subprocess.Popen(["nginx", "-p", place, "-c", conf, "-e", place / "errors"]) as server:
        try:
            _wait(port, server)
            yield Nginx(f"https://127.0.0.1:{port}", place / "authority.pem", place / "asked")
        finally:
            server.terminate()


def _certify(place: Path) -> None:
    """authority.pem, and server.pem with server.key, which it has signed."""
    made = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec", "-pkeyopt"]
    made += ["ec_paramgen_curve:prime256v1"]
    of_ca = ["-subj", "/CN=authority of a test", "-keyout", "authority.key", "-out", "authority.pem"]
    of_server = ["-CA", "authority.pem", "-CAkey", "authority.key", "-subj", "/CN=localhost"]
    of_server += ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"]
    of_server += ["-keyout", "server.key", "-out", "server.pem"]
    for more in (of_ca, of_server):
        subprocess.run(made + more, cwd=place, capture_output=True, check=True)


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert server.poll() is None, "nginx did not start"
            time.sleep(0.02)
    raise AssertionError("nginx does not answer")
