"""Real photographs as a folder of JPEG files, which is what other programs read."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
from glue_space import real_data
from PIL import Image

PARTS = ("train", "validation", "test")


def class_names(file: Path) -> list[str]:
    """Names of the classes, from the schema's metadata."""
    metadata = pq.read_schema(file).metadata or {}
    content = json.loads(metadata[b"huggingface"])
    return list(content["info"]["features"]["label"]["names"])


def parquet_files(name: str) -> dict[str, Path]:
    """The files of a data set by part.

    Raises:
        SystemExit: If it is not on this machine.
    """
    root = real_data()
    if root is None or not (root / name).is_dir():
        raise SystemExit(f"--data {name}: GSFL_TUNE_REAL_DATA names no folder that has {name}/")
    return {part: root / name / f"{part}.parquet" for part in PARTS}


def write_folder(name: str, target: Path) -> Path:
    """Writes ``target/PART/NUMBER/ID.jpg`` once; the numbers are those of the classes."""
    folder = target / name
    if folder.exists():
        return folder
    part_folder = target / f"{name}.part"
    for part, file in parquet_files(name).items():
        rows = pq.read_table(file, columns=["image", "label"])
        pairs = zip(rows["image"].to_pylist(), rows["label"].to_pylist(), strict=True)
        for number, (image, label) in enumerate(pairs):
            path = part_folder / part / f"{label:03d}" / f"{number:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            data = image["bytes"]
            if data[:2] == b"\xff\xd8":
                path.write_bytes(data)
            else:
                Image.open(io.BytesIO(data)).convert("RGB").save(path, quality=95)
    part_folder.rename(folder)
    return folder
