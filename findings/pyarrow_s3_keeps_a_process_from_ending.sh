#!/usr/bin/env bash
# pyarrow 26.0.1, `FileSystem.from_uri("s3://...")`: the end of a process while a thread waits for a
# server that accepts connections and does not answer.
#
# A daemon thread does not keep a process of Python from ending. But while such a thread is in
# `get_file_info`, the process stays after its last line until the request is given up, with all of its
# retries. `S3FileSystem` asks three times by default; `from_uri` takes neither timeouts nor a strategy of
# retries, and asks much longer. Only `os._exit` ends the process at once.
#
# Seconds that the process still takes after its last line, which it reaches in a second (the child is
# killed after 30; left alone it took 100):
#
#     from_uri      end of file    30.0 s (killed)
#     from_uri      os._exit        0.0 s
#     S3FileSystem  end of file    10.8 s (9 to 11)
#     S3FileSystem  os._exit        0.0 s
#
# Takes a minute. Needs python3 with venv; listens on 127.0.0.1. Fails if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1

cat > "$folder/child.py" <<'PY'
import os
import sys
import threading
import time

from pyarrow import fs

port, how, end = sys.argv[1:]
server = {"endpoint_override": f"127.0.0.1:{port}", "scheme": "http", "region": "us-east-1"}
if how == "from_uri":
    options = "&".join(f"{name}={value}" for name, value in server.items())
    system, path = fs.FileSystem.from_uri(f"s3://bucket/file?{options}")
else:
    system, path = fs.S3FileSystem(**server), "bucket/file"


def ask() -> None:
    try:
        system.get_file_info(path)
    except OSError:
        pass


threading.Thread(target=ask, daemon=True).start()
time.sleep(1)
print("last line", flush=True)
if end == "os._exit":
    os._exit(0)
PY

cat > "$folder/measure.py" <<'PY'
import os
import socket
import subprocess
import sys
import time

LIMIT = 30
keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
others = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}


def seconds(how: str, end: str) -> float:
    """Returns how long a child takes to end after its last line, LIMIT at most."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)  # the kernel accepts connections, and nobody answers
        words = [sys.executable, sys.argv[1], str(server.getsockname()[1]), how, end]
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**others, **keys})
        assert child.stdout.readline() == "last line\n"
        begun = time.monotonic()
        try:
            child.wait(LIMIT)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        return time.monotonic() - begun


for how, least in (("from_uri", 20), ("S3FileSystem", 5)):
    for end in ("end of file", "os._exit"):
        found = seconds(how, end)
        print(f"{how:14}{end:13}{found:6.1f} s", flush=True)
        assert found >= least if end == "end of file" else found < 5
PY

"$folder/env/bin/python" -c 'import pyarrow; print("pyarrow", pyarrow.__version__)'
timeout 180 "$folder/env/bin/python" "$folder/measure.py" "$folder/child.py"
