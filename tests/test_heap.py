"""Freed memory is kept while a training runs, and given back after it."""

from __future__ import annotations

import json
import platform

import pytest

from . import warm

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone")

# A process of its own: what is set holds for a whole process.
PROGRAM = """
import json, resource, sys
import torch
from gsfl_tune.heap import give_back, keep_freed

def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.empty(16, 2**20).zero_()  # 64 MB, which 16,384 pages hold
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    return 4096 * int(open("/proc/self/statm").read().split()[1])

torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed()
# The first tensors find no memory that fits them.
faults(8)
counted, full = faults(8), held()
give_back(collect=False)
print(json.dumps({"faults": counted, "freed": full - held()}))
"""


def _run(side: str) -> dict[str, int]:
    done = warm.run([side], code=PROGRAM)
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_a_tensor_takes_the_memory_of_the_one_before_until_it_is_given_back() -> None:
    kept, usual = _run("kept"), _run("usual")
    # One tensor of eight may still find none.
    assert kept["faults"] < usual["faults"] / 4
    assert kept["freed"] > 50e6
