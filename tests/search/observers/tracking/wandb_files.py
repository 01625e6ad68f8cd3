"""Reads what Weights & Biases writes offline, as its program that uploads reads it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def folders(wandb: Path) -> list[Path]:
    """One a run."""
    return sorted(wandb.glob("offline-run-*"))


def run_id(folder: Path) -> str:
    """The run's id."""
    (file,) = folder.glob("run-*.wandb")
    return file.name.removeprefix("run-").removesuffix(".wandb")


def history(folder: Path) -> list[dict[str, float]]:
    """What was logged, a row a step."""
    return [_items(record.history) for record in _records(folder) if record.HasField("history")]


def config(folder: Path) -> dict[str, Any]:
    """What the run was begun with."""
    found: dict[str, Any] = {}
    for record in _records(folder):
        updates = [record.config] if record.HasField("config") else []
        updates += [record.run.config] if record.HasField("run") else []
        for each in updates:
            found |= {item.key: json.loads(item.value_json) for item in each.update}
    return {name: value for name, value in found.items() if name and not name.startswith("_")}


def summary(folder: Path) -> dict[str, Any]:
    """What stands in the table of runs."""
    found: dict[str, Any] = {}
    for record in _records(folder):
        if record.HasField("summary"):
            for update in record.summary.update:
                name = "/".join(update.nested_key) or update.key
                found[name] = json.loads(update.value_json)
    return found


def _items(record: Any) -> dict[str, Any]:
    return {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.item}


def _records(folder: Path) -> Iterator[Any]:
    from wandb.proto import wandb_internal_pb2

    for data in _pieces(next(folder.glob("run-*.wandb")).read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        yield record


def _pieces(content: bytes) -> Iterator[bytes]:
    """A header of 7 bytes, then LevelDB's log format."""
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
