#!/usr/bin/env bash
# fsspec 2026.9.0 over HTTP: cat_file(URL, start, end) gives the whole file where a server does not answer requests for
# ranges, as `python -m http.server` does not, and raises nothing; cat_ranges gives it once for each range. Whoever
# reads records at their offsets gets other bytes, and more of them.
#
# Seen: asked for 10 bytes of 1000, cat_file gives 1000, cat_ranges 1000 and 1000.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail

work=$(mktemp -d)
trap 'kill "${server:-0}" 2>"$work/nothing" || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet 'fsspec[http]==2026.9.0'
mkdir "$work/files"
head -c 1000 /dev/urandom > "$work/files/records"
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
python3 -m http.server "$port" --bind 127.0.0.1 --directory "$work/files" > "$work/log" 2>&1 &
server=$!
"$work/venv/bin/python" - "http://127.0.0.1:$port/records" "$work/files/records" <<'PYTHON'
import sys
import time

import fsspec

url, file = sys.argv[1:]
content, files = open(file, "rb").read(), fsspec.filesystem("http")
for _ in range(100):
    try:
        files.info(url)
        break
    except FileNotFoundError:
        time.sleep(0.1)
given = files.cat_file(url, start=100, end=110)
ranges = files.cat_ranges([url, url], [100, 200], [110, 210])
print("fsspec", fsspec.__version__, "asked for 10 bytes, got", len(given), "and", [len(each) for each in ranges])
assert given == content, "cat_file gave something else than the whole file"
assert ranges == [content, content], "cat_ranges gave something else than the whole file, twice"
PYTHON
