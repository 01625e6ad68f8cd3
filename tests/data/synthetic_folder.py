"""A folder as `gsfl-tune synthesize` writes it, made without a pipeline."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from gsfl_tune.data.digests import _hash
from gsfl_tune.data.marks import marked_png


def write_synthetic(folder: Path, images: list[tuple[str, Image.Image, list[Path]]]) -> Path:
    """Writes images of (class, image, files that it was made from)."""
    records = []
    for number, (name, image, sources) in enumerate(images):
        file = f"0000-{name}/{number:05}.png"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(marked_png(image, {"number": number}))
        digests = [_hash(each.read_bytes()).hex() for each in sources]
        records.append(
            {
                "file": file,
                "class": name,
                "number": number,
                "sources": [{"path": "", "digest": each} for each in digests],
            }
        )
    # What was refused has no file.
    records.append({"file": None, "class": images[0][0], "number": 99, "sources": []})
    content = {"format": 1, "finished": True, "records": records}
    (folder / "synthetic.json").write_text(json.dumps(content))
    return folder
