"""One name in two Unicode forms: composed in a list, decomposed on disk as macOS writes it."""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gsfl_tune.data import prepare
from tests.data.conftest import configure, picture, save

KINDS = ("Épervier", "mésange")
FORMS = [("NFC", "NFD"), ("NFD", "NFC")]


def spell(form: str, text: str) -> str:
    return unicodedata.normalize(form, text)


def photographs(root: Path, form: str) -> list[tuple[str, str]]:
    """Ten images of each kind in folders of their names; (relative path, kind) of each."""
    found = []
    for number in range(20):
        name = spell("NFC", f"photographiés/{KINDS[number % 2]} {number:02d}.png")
        save(root / spell(form, name), number)
        found.append((name, KINDS[number % 2]))
    return found


def csv(root, rows, form):
    table = pd.DataFrame(rows, columns=["file_name", "label"]).map(lambda text: spell(form, text))
    table.to_csv(root / "list.csv", index=False)
    return root / "list.csv"


def jsonl(root, rows, form):
    lines = [{"file_name": spell(form, name), "label": spell(form, kind)} for name, kind in rows]
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return root / "list.jsonl"


def names_alone(root, rows, form):
    """Names of files without their folder and suffix, which are looked up."""
    return csv(root, [(Path(name).stem, kind) for name, kind in rows], form)


def coco(root, rows, form):
    content = {
        "images": [{"id": i, "file_name": spell(form, name)} for i, (name, _) in enumerate(rows)],
        "categories": [{"id": i, "name": spell(form, kind)} for i, kind in enumerate(KINDS)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": KINDS.index(kind)}
            for i, (_, kind) in enumerate(rows)
        ],
    }
    (root / "coco.json").write_text(json.dumps(content))
    return root / "coco.json"


def parquet(root, rows, form):
    """Rows that name a file beside the table."""
    images = [{"bytes": None, "path": spell(form, name)} for name, _ in rows]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = {
        "image": pa.array(images, kind),
        "label": [spell(form, kind) for _, kind in rows],
    }
    pq.write_table(pa.table(table), root / "list.parquet")
    return root / "list.parquet"


@pytest.mark.parametrize(("listed", "on_disk"), FORMS)
@pytest.mark.parametrize(
    ("source", "write"),
    [
        ("csv", csv),
        ("csv", names_alone),
        ("jsonl", jsonl),
        ("coco", coco),
        ("parquet", parquet),
    ],
)
def test_files_are_found_in_the_other_spelling(tmp_path, cache, source, write, listed, on_disk):
    rows = photographs(tmp_path, on_disk)
    dataset = prepare(configure(source, write(tmp_path, rows, listed)), cache_dir=cache)
    assert sorted(dataset.classes) == sorted(KINDS)
    assert not dataset.broken
    assert sum(dataset.summary()["counts"].values()) == 20
    for path, label in zip(dataset.pool.paths, dataset.pool.labels, strict=True):
        assert dataset.classes[label] in spell("NFC", path)


@pytest.mark.parametrize(("listed", "on_disk"), FORMS)
def test_lists_of_public_data_sets(tmp_path, cache, listed, on_disk):
    root = tmp_path / "food-101"
    (root / "meta").mkdir(parents=True)
    kinds = ("crème_brûlée", "paté")
    (root / "meta" / "classes.txt").write_text(spell(listed, "\n".join(kinds)))
    for start, part in ((0, "train"), (10, "test")):
        lines = []
        for number in range(start, start + 10):
            name = f"{kinds[number % 2]}/{number}"
            save(root / "images" / spell(on_disk, f"{name}.jpg"), number)
            # The second list was made on another system.
            lines.append(spell(listed if part == "train" else on_disk, name))
        (root / "meta" / f"{part}.txt").write_text("\n".join(lines))
    dataset = prepare(configure("food101", tmp_path), cache_dir=cache)
    assert dataset.classes == ["crème brûlée", "paté"]
    assert (len(dataset.pool), len(dataset.test), dataset.broken) == (10, 10, [])


def folders(root, labels):
    for number, label in enumerate(labels):
        # Both spellings of one class, as after unpacking an archive of macOS over another.
        save(root / label / f"{number}.png", number)
    return root


def cells(root, labels):
    for number in range(len(labels)):
        save(root / f"{number}.png", number)
    names = [f"{number}.png" for number in range(len(labels))]
    pd.DataFrame({"file_name": names, "label": labels}).to_csv(root / "list.csv", index=False)
    return root / "list.csv"


def content(number: int) -> bytes:
    stream = io.BytesIO()
    picture(number).save(stream, "PNG")
    return stream.getvalue()


def column(root, labels):
    images = [{"bytes": content(n), "path": f"{n}.png"} for n in range(len(labels))]
    pq.write_table(pa.table({"image": images, "label": labels}), root / "a.parquet")
    return root / "a.parquet"


def shard(root, labels):
    with tarfile.open(root / "a.tar", "w") as archive:
        for number, label in enumerate(labels):
            for suffix, data in (("png", content(number)), ("cls", label.encode())):
                info = tarfile.TarInfo(f"{number:03d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return root / "a.tar"


@pytest.mark.parametrize(
    ("source", "write"),
    [("folder", folders), ("csv", cells), ("parquet", column), ("webdataset", shard)],
)
def test_two_spellings_of_a_class_are_one(tmp_path, cache, source, write):
    root = tmp_path / "data"
    root.mkdir()
    labels = [spell(FORMS[number % 4 > 1][0], KINDS[number % 2]) for number in range(20)]
    assert len(set(labels)) == 4
    dataset = prepare(configure(source, write(root, labels)), cache_dir=cache)
    assert dataset.classes == sorted(KINDS)
    assert sum(dataset.summary()["counts"].values()) == 20
