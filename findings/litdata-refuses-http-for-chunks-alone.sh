#!/usr/bin/env bash
# LitData 0.2.76 with obstore 0.12.1, which it installs: from an S3 store at an http:// address (MinIO on a local
# machine, say) it reads index.json, by boto3, and then refuses each chunk, which it fetches by obstore without leave to
# speak plain HTTP. Neither AWS_ALLOW_HTTP nor storage_options changes that; boto3 reads the same chunk from there.
#
# Seen: len() of the data set is right, and the first sample raises RuntimeError, "Chunk prefetch thread crashed", in
# whose text stands BadScheme; the server has been asked for index.json and for no chunk.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q litdata==0.2.76 obstore==0.12.1 torch==2.14.1
cd "$home"
cat >program.py <<'PY'
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
from litdata import StreamingDataset, optimize

asked = []


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path.rpartition("/")[2])
        content = Path("store", self.path.lstrip("/")).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def sample(number):
    return {"number": number}


if __name__ == "__main__":
    optimize(sample, list(range(64)), "store/bucket/set", chunk_size=16, num_workers=1, verbose=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}
    os.environ |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    found = []
    for options in ({}, {"endpoint_url": url, "use_ssl": False}):
        samples = StreamingDataset("s3://bucket/set", cache_dir=f"cache-{len(found)}", storage_options=options)
        length = len(samples)
        try:
            next(iter(samples))
            said = "a sample"
        except RuntimeError as error:
            said = "BadScheme" if "BadScheme" in str(error) else str(error).splitlines()[0]
        found.append((length, said))
        print(f"storage_options with {[*options]}: {length} samples; the first one: {said}; asked for: {asked}")
    chunks = [name for name in asked if name.endswith(".bin")]
    content = boto3.client("s3").get_object(Bucket="bucket", Key="set/chunk-0-0.bin")["Body"].read()
    print(f"boto3 reads {len(content)} bytes of a chunk from the same address")
    sys.stdout.flush()
    os._exit(0 if found == [(64, "BadScheme")] * 2 and not chunks and content else 1)
PY
timeout 300 "$home/venv/bin/python" program.py 2>program.log
