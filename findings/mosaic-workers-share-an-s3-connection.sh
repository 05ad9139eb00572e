#!/usr/bin/env bash
# Mosaic Streaming 0.13.0 fetches index.json of an s3:// data set in the process that opens it, and keeps the client of
# boto3. DataLoader's workers are forked with that client and its open connection, and all send their requests on it.
# On a store that is reached by plain HTTP (S3_ENDPOINT_URL=http://…) and keeps connections alive, workers take each
# other's answers: files of shards arrive in their full length, but with bytes of other shards and headers of HTTP in
# them, and samples of the wrong content or errors come of it.
#
# Seen, two workers, eight shards, a server that takes 0.2 s per answer: in two of three runs one to three of the files
# are not those of the store, and reading them ends with IndexError. With stream._downloader.clean_up() before the workers
# start, which makes each open a client of its own, or with one worker, all files are the store's.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q mosaicml-streaming==0.13.0 torch==2.14.1
cd "$home"
cat >program.py <<'PY'
import filecmp
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

STORE = Path("store")


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.2)
        content = (STORE / self.path.lstrip("/")).read_bytes()
        self.send_response(200)
        for name, value in (("Content-Length", len(content)), ("ETag", '"0"')):
            self.send_header(name, str(value))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass  # a worker has gone

    def log_message(self, *_):
        pass


def read(name, workers, anew):
    """How many files are not the store's."""
    clean_stale_shared_memory()
    samples = StreamingDataset(
        remote="s3://bucket/set", local=name, shuffle=True, batch_size=8, download_timeout=10, download_retry=1
    )
    if anew:
        for stream in samples.streams:
            stream._downloader.clean_up()
    said = "no error"
    try:
        wrong = sum(
            {*content} != {number % 251}
            for batch in DataLoader(samples, batch_size=8, num_workers=workers, collate_fn=list)
            for number, content in ((sample["number"], sample["content"]) for sample in batch)
        )
        said = f"{wrong} of {len(samples)} samples with other bytes"
    except Exception as error:
        said = type(error).__name__
    files = [file.name for file in Path(name).glob("*.mds")]
    other = sum(not filecmp.cmp(Path(name, file), STORE / "bucket/set" / file, shallow=False) for file in files)
    print(f"{name}: {other} of {len(files)} files are not the store's; {said}", flush=True)
    return other


with MDSWriter(out=str(STORE / "bucket/set"), columns={"number": "int", "content": "bytes"}, size_limit=1 << 18) as out:
    for number in range(512):
        out.write({"number": number, "content": bytes([number % 251]) * 4000})
server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
os.environ |= {"S3_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}", "AWS_DEFAULT_REGION": "us-east-1"}
os.environ |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
good = [read("one-worker", 1, False), *(read(f"two-workers-anew-{number}", 2, True) for number in range(3))]
mixed = any(read(f"two-workers-{number}", 2, False) for number in range(6))  # until one run has met it
os._exit(0 if mixed and not any(good) else 1)
PY
timeout 900 "$home/venv/bin/python" program.py 2>program.log
