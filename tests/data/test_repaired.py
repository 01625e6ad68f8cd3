"""An image that could not be read is read once its file, its mount or a package is repaired."""

from __future__ import annotations

import hashlib
import sys
from contextlib import contextmanager

import pyarrow as pa
import pytest
from PIL import Image

from gsfl_tune.data import formats, prepare
from gsfl_tune.data.digests import read_contents
from gsfl_tune.data.sources import create_source
from tests.data.conftest import configure, fill, picture


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "images", {"a": 8, "b": 8})


def test_a_file_that_is_back_is_read(folder, cache, tmp_path):
    """Its size and its time of change are what they were, as after a repair of its rights."""
    source = create_source(configure("folder", folder), cache)
    file, away = source.files[3], tmp_path / "away"
    file.rename(away)
    missing = read_contents(source, cache).digests
    away.rename(file)
    found = read_contents(source, cache).digests
    assert [a == b for a, b in zip(missing, found, strict=True)] == [n != 3 for n in range(16)]
    assert found[3] == hashlib.blake2b(file.read_bytes(), digest_size=16).digest()
    # Nor is it taken from a file of an earlier version, which kept it.
    [kept] = (cache / "digests").glob("*.arrow")
    stored = pa.ipc.open_file(kept.read_bytes()).read_all()
    column = pa.array(missing, pa.binary(16))
    stored = stored.set_column(stored.column_names.index("digest"), "digest", column)
    with pa.OSFile(str(kept), "wb") as sink, pa.ipc.new_file(sink, stored.schema) as writer:
        writer.write_table(stored)
    assert read_contents(source, cache).digests == found


@contextmanager
def without_heif():
    """As on a machine without the package, which Pillow has not met either."""
    Image.init()  # all other formats
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pillow_heif", None)
        patch.setattr(Image, "ID", [each for each in Image.ID if each != "HEIF"])
        patch.delitem(Image.OPEN, "HEIF", raising=False)
        formats.heif.cache_clear()
        yield
    formats.heif.cache_clear()


def test_a_heic_photograph_of_another_name_is_read_after_its_package_is_installed(folder, cache):
    pillow_heif = pytest.importorskip("pillow_heif")
    photograph = picture(99, (6, 6)).resize((96, 96), Image.Resampling.BICUBIC)
    photograph.save(folder / "a" / "copy.png")
    pillow_heif.from_pillow(photograph).save(folder / "a" / "phone.heic", quality=95)
    (folder / "a" / "phone.heic").rename(folder / "a" / "phone.jpg")
    config = configure("folder", folder, max_broken=0.5)
    with without_heif():
        dataset = prepare(config, cache_dir=cache)
        [broken] = dataset.broken
        assert broken.reason == formats.NEEDS_HEIF
        assert not dataset.near_duplicates().groups
    dataset = prepare(config, cache_dir=cache)
    assert not dataset.broken
    assert len(dataset.pool) + len(dataset.test) == 18
    assert len(dataset.near_duplicates().groups) == 1
    # What was decoded without the package serves with it, where no image needs it.
    (folder / "a" / "phone.jpg").unlink()
    with without_heif():
        prepare(config, cache_dir=cache)
    kept = sorted((cache / "decoded").glob("*.arrow"))
    prepare(config, cache_dir=cache)
    assert sorted((cache / "decoded").glob("*.arrow")) == kept
