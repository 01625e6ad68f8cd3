from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def test_a_large_row_group_is_not_held_as_a_whole(tmp_path):
    """What pyarrow 26.0.1 does by its defaults, and with either of two settings alone."""
    random = np.random.default_rng(0)
    rows = [{"bytes": random.bytes(40_000), "path": None} for _ in range(2500)]
    table = pa.table({"image": rows, "label": [n % 2 for n in range(2500)]})
    pq.write_table(table, tmp_path / "train.parquet")
    code = """
import sys
from pathlib import Path
import pyarrow as pa
import pyarrow.parquet as pq
from gsfl_tune.data.sources import ParquetSource
if sys.argv[2] == "ours":
    source = ParquetSource(sys.argv[1], Path(sys.argv[1]))
    count = sum(len(read()) == 40_000 for _, read in source.readers(range(2500)))
else:
    file = pq.ParquetFile(Path(sys.argv[1]) / "train.parquet")
    count = sum(batch.num_rows for batch in file.iter_batches(64, columns=["image"]))
print(count, pa.default_memory_pool().max_memory())
"""

    def peak(who):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), who],
            capture_output=True,
            text=True,
            check=True,
        )
        count, found = map(int, done.stdout.split())
        assert count == 2500
        return found

    assert peak("ours") < 0.75 * peak("pyarrow")
