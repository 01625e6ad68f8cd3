#!/usr/bin/env bash
# pyarrow 26.0.1, `ParquetFile.iter_batches`: memory while a few rows at a time are read of a large row
# group.
#
# The documentation says of `pre_buffer` (default True): "Set to False if you want to prioritize
# minimal memory usage over maximum speed". Set alone it saves nothing: without `buffer_size` the
# column of a row group is read in one piece all the same. `buffer_size` alone saves nothing either,
# as pre-buffering holds the column. Only both together bound memory, by the size of a data page: the
# writer closes pages every 1,024 values whatever they weigh, so pages of images are large too.
#
# One row group of 1,500 images of 100 kB (150 MB), batches of 64 rows, largest memory of pyarrow's
# pool:
#
#     default                                   409 MB
#     pre_buffer=False                          409 MB
#     buffer_size=4 MiB                         409 MB
#     pre_buffer=False, buffer_size=4 MiB       263 MB
#
# Needs python3 with venv, and 300 MB on the disk. Fails if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1 numpy==2.4.0

cat > "$folder/write.py" <<'PY'
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

random = np.random.default_rng(0)
rows = [random.integers(0, 256, 100_000, dtype=np.uint8).tobytes() for _ in range(1500)]
pq.write_table(pa.table({"image": pa.array(rows, pa.binary())}), sys.argv[1])
PY

cat > "$folder/read.py" <<'PY'
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq

options = json.loads(sys.argv[2])
count = 0
for batch in pq.ParquetFile(sys.argv[1], **options).iter_batches(64):
    count += batch.num_rows
    del batch
assert count == 1500
print(round(pa.default_memory_pool().max_memory() / 1e6))
PY

"$folder/env/bin/python" "$folder/write.py" "$folder/images.parquet"
"$folder/env/bin/python" -c 'import pyarrow; print("pyarrow", pyarrow.__version__)'
peak() { "$folder/env/bin/python" "$folder/read.py" "$folder/images.parquet" "$1"; }
default=$(peak '{}')
alone=$(peak '{"pre_buffer": false}')
buffered=$(peak '{"buffer_size": 4194304}')
both=$(peak '{"pre_buffer": false, "buffer_size": 4194304}')
echo "default $default MB; pre_buffer=False $alone MB; buffer_size=4 MiB $buffered MB; both $both MB"
test $((alone * 100)) -ge $((default * 95))
test $((buffered * 100)) -ge $((default * 95))
test $((both * 100)) -le $((default * 75))
