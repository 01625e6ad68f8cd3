"""What Weights & Biases writes offline, for a search and its resume."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import EpochLog
from gsfl_tune.search.journal import read_studies
from gsfl_tune.search.tracking import open_trackers, track_run
from tests.search.tracking.conftest import TRIALS, Followed


def _folders(wandb: Path) -> list[Path]:
    return sorted(wandb.glob("offline-run-*"))


def _id(folder: Path) -> str:
    (file,) = folder.glob("run-*.wandb")
    return file.name.removeprefix("run-").removesuffix(".wandb")


def _records(content: bytes) -> Iterator[bytes]:
    """Records of a W&B file: a header of 7 bytes, then LevelDB's log format."""
    assert content[:4] == b":W&B"
    offset, record = 7, b""
    while offset + 7 <= len(content):
        left = 32768 - offset % 32768
        if left < 7:
            offset += left
            continue
        length, kind = struct.unpack_from("<HB", content, offset + 4)
        record += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def _history(folder: Path) -> list[dict[str, float]]:
    """The rows of a run, as the program that uploads them reads its file."""
    from wandb.proto import wandb_internal_pb2

    rows = []
    for data in _records(next(folder.glob("run-*.wandb")).read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return rows


def test_every_trial_is_one_run_with_all_its_epochs(followed: Followed) -> None:
    folders = _folders(followed.wandb)
    ids = [_id(folder) for folder in folders]
    run_id = json.loads((followed.run.path / "tracking.json").read_text())["id"]
    assert Counter(ids) == Counter(f"{run_id}-search-{number}" for number in range(TRIALS))
    for folder, name in zip(folders, ids, strict=True):
        number = int(name.rsplit("-", 1)[1])
        epochs = EpochLog(followed.run.trial("search", number) / "epochs.jsonl").read()
        rows = _history(folder)
        assert [row["_step"] for row in rows] == [epoch["epoch"] for epoch in epochs]
        assert [row["validation/nll"] for row in rows] == pytest.approx(
            [epoch["validation/nll"] for epoch in epochs]
        )


def test_tracking_again_writes_nothing(followed: Followed, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _folders(followed.wandb)
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert track_run(followed.run, open_trackers(wandb="tests")) == TRIALS
    assert _folders(followed.wandb) == before
    assert len(read_studies(followed.run.journal)["search"]) == TRIALS


def test_a_key_that_is_not_there_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(UserError, match="wandb login"):
        open_trackers(wandb="tests")
    with pytest.raises(UserError, match="ENTITY/PROJECT"):
        open_trackers(wandb="a/b/c")
