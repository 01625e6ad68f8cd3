from __future__ import annotations

from pathlib import Path

import pytest

from gsfl_tune.run import EpochLog, Ownership, OwnershipLost


def test_whoever_took_a_directory_last_writes_there_and_nobody_else(tmp_path: Path) -> None:
    before, after = Ownership(tmp_path / "7"), Ownership(tmp_path / "7")
    before.take()
    log = EpochLog(tmp_path / "7" / "epochs.jsonl", before.check)
    log.append({"epoch": 1})
    after.take()
    with pytest.raises(OwnershipLost, match="another process"):
        log.append({"epoch": 2})
    with pytest.raises(OwnershipLost):
        log.truncate(0)
    assert [record["epoch"] for record in log.read()] == [1]
    EpochLog(log.path, after.check).append({"epoch": 2})
    assert [record["epoch"] for record in log.read()] == [1, 2]


def test_a_directory_that_is_gone_is_the_machines_fault(tmp_path: Path) -> None:
    ownership = Ownership(tmp_path / "7")
    ownership.take()
    (tmp_path / "7" / ".owner").unlink()
    with pytest.raises(OSError):
        ownership.check()
