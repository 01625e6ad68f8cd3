"""Shards that the `webdataset` package wrote."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile

import fsspec
import numpy as np
import pytest

from gsfl_tune.cache.entries import entries, sweep
from gsfl_tune.data import load_square, prepare
from gsfl_tune.data.labelled_images import open_for_evaluation
from gsfl_tune.data.sources import WebDatasetSource, count_classes, detect_source
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.braces import expand_braces
from gsfl_tune.experiment.errors import ExperimentError, UserError
from tests.data.conftest import configure, picture, save
from tests.http_server import Server

webdataset = pytest.importorskip("webdataset")

NAMES = ["hat", "shoe"]


def content(seed):
    stream = io.BytesIO()
    picture(seed).save(stream, format="PNG")
    return stream.getvalue()


def shard(path, count, *, seed=0, **more):
    """Writes samples: image i is `picture(seed + i)`, label i % 2; `more` are functions of i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    more = more or {"cls": lambda n: n % 2}
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(count):
            others = {suffix: make(number) for suffix, make in more.items()}
            writer.write(
                {"__key__": f"{seed + number:06d}", "png": content(seed + number), **others}
            )
    return path


def check_pixels(dataset):
    """Every image is the picture whose seed is its key."""
    for images in (dataset.pool, dataset.test):
        for place, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
            key = int(path.rpartition("(")[2].partition(".")[0])
            expected = load_square(content(key), dataset.pool.side)[0]
            np.testing.assert_array_equal(images.gather(np.array([place]))[0], expected)
            assert label == key % 2


def test_names_beside_shards_of_a_url(tmp_path, cache):
    """The names lie beside the shards there too, and messages have the addresses as they are."""
    file = shard(tmp_path / "here" / "all.tar", 8)
    (tmp_path / "here" / "classes.txt").write_text("\n".join(NAMES))
    dataset = prepare(configure("webdataset", f"file://{tmp_path}/here"), cache_dir=cache)
    assert dataset.classes == NAMES
    assert dataset.pool.paths[0].startswith(f"file://{file}#")
    pytest.importorskip("aiohttp")
    with Server() as server:
        server.files["/data/all.tar"] = file.read_bytes()
        server.files["/data/classes.txt"] = "\n".join(NAMES).encode()
        url = server.url("/data/all.tar")
        dataset = prepare(configure("webdataset", url), cache_dir=cache)
    assert dataset.classes == NAMES
    assert dataset.pool.paths[0].startswith(f"{url}#")
    check_pixels(dataset)


def test_shards_with_numbers_and_names_beside(tmp_path, cache):
    for number in range(3):
        shard(tmp_path / f"train-{number:06d}.tar", 8, seed=100 * number)
    shard(tmp_path / "val-000000.tar", 4, seed=1000)
    (tmp_path / "classes.txt").write_text("hat\nshoe\n")
    for path in (
        str(tmp_path),
        str(tmp_path / "{train-{000000..000002},val-000000}.tar"),
        [str(tmp_path / "train-*.tar"), str(tmp_path / "val-000000.tar")],
    ):
        dataset = prepare(configure("auto", path), cache_dir=cache)
        assert dataset.classes == NAMES
        assert dataset.summary()["counts"] == {"train": 20, "validation": 4, "test": 4}
        assert "is read as webdataset" in dataset.notices[0]
        check_pixels(dataset)
        assert count_classes(configure("auto", path)) == 2


def test_it_lists_what_the_package_reads(tmp_path):
    file = shard(tmp_path / "a.tar", 7, cls=lambda n: n % 3)
    source = WebDatasetSource(str(file), tmp_path)
    read = list(webdataset.WebDataset(str(file), shardshuffle=False))
    assert [int(sample["cls"]) for sample in read] == [each.label for each in source.samples]
    assert [sample["png"] for sample in read] == [
        reader() for _, reader in source.readers(range(7))
    ]


@pytest.mark.parametrize(
    ("more", "given", "classes"),
    [
        ({"cls": lambda n: n % 2}, {}, ["0", "1"]),
        ({"txt": lambda n: NAMES[n % 2]}, {}, NAMES),
        ({"json": lambda n: {"label": n % 2, "id": n}}, {}, ["0", "1"]),
        ({"json": lambda n: {"kind": NAMES[n % 2]}}, {"label_column": "kind"}, NAMES),
        ({"kind.txt": lambda n: NAMES[n % 2].encode()}, {"label_column": "kind.txt"}, NAMES),
        # Of several, the one that is made for it.
        ({"cls": lambda n: n % 2, "txt": lambda n: f"a photo of {n}"}, {}, ["0", "1"]),
    ],
)
def test_where_a_label_may_be(tmp_path, cache, more, given, classes):
    file = shard(tmp_path / "a.tar", 12, **more)
    dataset = prepare(configure("webdataset", file, **given), cache_dir=cache)
    assert dataset.classes == classes
    check_pixels(dataset)


@pytest.mark.parametrize(
    "text", ['["hat", "shoe"]', '{"shoe": 1, "hat": 0}', '{"0": "hat", "1": "shoe"}']
)
def test_names_in_json(tmp_path, cache, text):
    file = shard(tmp_path / "train" / "a.tar", 12)
    (tmp_path / "classes.json").write_text(text)
    assert prepare(configure("webdataset", file), cache_dir=cache).classes == NAMES
    (tmp_path / "classes.json").write_text('{"hat": 1, "shoe": 2}')
    with pytest.raises(
        UserError, match=r"classes\.json: the numbers of the classes must be 0 to 1"
    ):
        prepare(configure("webdataset", file), cache_dir=cache)


def test_what_is_left_out_is_counted(tmp_path, cache):
    path = tmp_path / "a.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number in range(12):
            writer.write({"__key__": f"{number}", "png": content(number), "cls": number % 2})
        writer.write({"__key__": "unknown", "png": content(50), "cls": -1})
        writer.write({"__key__": "bare", "png": content(51)})
        writer.write({"__key__": "blind", "cls": 1})
        writer.write({"__key__": "heard", "png": content(52), "cls": 1, "wav": b"RIFF"})
    dataset = prepare(configure("webdataset", path), cache_dir=cache)
    assert len(dataset.pool) + len(dataset.test) == 13
    assert dataset.notices == [
        "not used of the shards: 1 file: .wav 1",
        "left out: 3 samples: without a label 2, without an image 1",
    ]


def test_labels_outside_the_list(tmp_path, cache):
    file = shard(tmp_path / "a.tar", 12, cls=lambda n: n % 3)
    (tmp_path / "classes.txt").write_text("hat\nshoe\n")
    with pytest.raises(UserError, match=r"labels outside the 2 classes: sample 2 \(2\)"):
        prepare(configure("webdataset", file), cache_dir=cache)


def test_several_images_a_sample(tmp_path, cache):
    more = {"cls": lambda n: n % 2, "mask.png": lambda n: content(500 + n)}
    file = shard(tmp_path / "a.tar", 12, **more)
    with pytest.raises(
        UserError, match=r"12 samples hold several images: .*\(\.mask\.png, \.png\)"
    ):
        prepare(configure("webdataset", file), cache_dir=cache)
    check_pixels(prepare(configure("webdataset", file, image_column=".PNG"), cache_dir=cache))


def test_a_shard_that_has_changed_is_listed_anew(tmp_path, cache):
    shard(tmp_path / "train.tar", 8)
    other = shard(tmp_path / "test.tar", 4, seed=100)
    first = prepare(configure("webdataset", tmp_path), cache_dir=cache)
    assert prepare(configure("webdataset", tmp_path), cache_dir=cache).digest == first.digest
    assert len(list((cache / "digests").glob("*.shards"))) == 1
    shard(other, 6, seed=101)
    again = prepare(configure("webdataset", tmp_path), cache_dir=cache)
    assert len(again.test) == 6
    squares = [load_square(content(seed), again.pool.side)[0] for seed in range(101, 107)]
    np.testing.assert_array_equal(again.test.gather(np.arange(6)), np.stack(squares))


def test_captions_are_no_labels(tmp_path, cache):
    file = shard(tmp_path / "a.tar", 12, txt=lambda n: f"a photo of bird {n}")
    with pytest.raises(UserError, match="12 different texts, which look like captions"):
        prepare(configure("webdataset", file), cache_dir=cache)


def test_shards_without_labels(tmp_path, cache):
    file = shard(tmp_path / "a.tar", 12, wav=lambda n: b"RIFF")
    with pytest.raises(UserError) as error:
        prepare(configure("webdataset", file), cache_dir=cache)
    assert "no sample has an image and a label: found .png, .wav; expected" in str(error.value)


def test_files_of_a_sample_need_not_follow_each_other(tmp_path, cache):
    """As `tar` packs a folder, in no order: here all images come first."""
    for number in range(12):
        save(tmp_path / "x" / f"{number}.png", number)
        (tmp_path / "x" / f"{number}.cls").write_text(f"{number % 2}\n")
    names = [f"{n}.{suffix}" for suffix in ("png", "cls") for n in range(12)]
    subprocess.run(["tar", "cf", tmp_path / "a.tar", "-C", tmp_path / "x", *names], check=True)
    dataset = prepare(configure("webdataset", tmp_path / "a.tar"), cache_dir=cache)
    assert len(dataset.pool) + len(dataset.test) == 12
    for images in (dataset.pool, dataset.test):
        for path, label in zip(images.paths, images.labels, strict=True):
            assert int(path.rpartition("(")[2].partition(".")[0]) % 2 == label
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        archive.add(tmp_path / "x" / "0.png", "0.png")
    with pytest.raises(UserError, match=r"0: two files \.png, allowed is one"):
        prepare(configure("webdataset", tmp_path / "a.tar"), cache_dir=cache)


def test_compressed_shards_are_refused(tmp_path, cache):
    plain = shard(tmp_path / "a.tar", 8)
    squeezed = tmp_path / "b" / "train.tar.gz"
    squeezed.parent.mkdir()
    squeezed.write_bytes(gzip.compress(plain.read_bytes()))
    for path in (squeezed, squeezed.parent):
        with pytest.raises(UserError, match=r"train\.tar\.gz: a compressed archive .*`gunzip` it"):
            prepare(configure("auto", path), cache_dir=cache)
    renamed = squeezed.rename(tmp_path / "b" / "train.tar")
    with pytest.raises(UserError, match=r"is a \.tar\.gz: a compressed archive .*`gunzip` it"):
        prepare(configure("auto", renamed), cache_dir=cache)


def test_damaged_shards(tmp_path, cache):
    file = shard(tmp_path / "a.tar", 12)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2 + 700])
    with pytest.raises(UserError, match=r"a\.tar: (cannot be read as a tar file|damaged)"):
        prepare(configure("webdataset", file), cache_dir=cache)
    # A header in the middle: tarfile takes it for the end and says nothing.
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        offset = archive.getmembers()[10].offset
    file.write_bytes(whole[:offset] + b"x" * 512 + whole[offset + 512 :])
    with pytest.raises(UserError, match=rf"damaged at byte {offset:,}; what follows is not read"):
        prepare(configure("webdataset", file), cache_dir=cache)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(UserError, match="a git-LFS pointer, not the file itself"):
        prepare(configure("webdataset", file), cache_dir=cache)
    file.write_bytes(whole)
    (tmp_path / "b.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"b\.tar: cannot be read as a tar file: empty"):
        prepare(configure("webdataset", tmp_path), cache_dir=cache)


def test_labels_that_are_none(tmp_path, cache):
    file = shard(tmp_path / "a.tar", 8, json=lambda n: {"label": [n]})
    with pytest.raises(UserError, match=r"000000\.json: label: found \[0\], allowed an integer"):
        prepare(configure("webdataset", file), cache_dir=cache)


def test_other_file_systems(cache):
    memory = fsspec.filesystem("memory")
    try:
        for number in range(2):
            name = f"/gsfl-web/train-{number}.tar"
            with memory.open(name, "wb") as stream, webdataset.TarWriter(stream) as writer:
                for n in range(10 * number, 10 * number + 10):
                    writer.write({"__key__": f"{n}", "png": content(n), "cls": n % 2})
        memory.pipe_file("/gsfl-web/classes.json", b'["hat", "shoe"]')
        for path in ("memory://gsfl-web/train-{0..1}.tar", "memory://gsfl-web/*.tar"):
            assert detect_source(path) == "webdataset"
            dataset = prepare(configure("auto", path), cache_dir=cache)
            assert dataset.classes == NAMES
            assert len(dataset.pool) + len(dataset.test) == 20
        check_pixels(dataset)
        # One copy of each, the class names too, and the cache knows all of them.
        sweep(cache)
        assert sum(entry.kind == "remote" for entry in entries(cache)) == 3
    finally:
        memory.rm("/gsfl-web", recursive=True)


def test_an_archive_beside_folders_of_images_is_what_they_came_in(tmp_path):
    save(tmp_path / "hat" / "1.png", 1)
    shard(tmp_path / "images.tar", 2)
    assert detect_source(str(tmp_path)) == "folder"


def test_an_evaluation_takes_the_test_shards(tmp_path, cache):
    shard(tmp_path / "train-0.tar", 8)
    shard(tmp_path / "test-0.tar", 4, seed=100)
    found = open_for_evaluation(tmp_path, 16, "crop", cache)
    assert (found.part, len(found.images)) == ("test", 4)
    found = open_for_evaluation(tmp_path / "test-0.tar", 16, "crop", cache)
    assert found.classes == ["0", "1"]


def test_an_experiment_with_braces(tmp_path):
    for number in range(3):
        shard(tmp_path / f"train-{number}.tar", 2)
    text = "name: x\ndata: {{source: webdataset, path: '{}'}}\n"
    Experiment.parse(text.format(tmp_path / "train-{0..2}.tar"), file="x.yaml")
    with pytest.raises(ExperimentError, match=r"of which 1 do not exist, such as .*train-3\.tar"):
        Experiment.parse(text.format(tmp_path / "train-{0..3}.tar"), file="x.yaml")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.tar", ["a.tar"]),
        ("a-{08..10}.tar", ["a-08.tar", "a-09.tar", "a-10.tar"]),
        ("{a,b}-{0..1}", ["a-0", "a-1", "b-0", "b-1"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{0..5..2}", ["0", "2", "4"]),
        ("{x}-{0..1}", ["{x}-0", "{x}-1"]),
        ("{{0..1},z}", ["0", "z", "1", "z"]),
    ],
)
def test_braces(text, names):
    assert sorted(expand_braces(text)) == sorted(names)


@pytest.mark.parametrize("text", ["{0..999999999}", "{0..999}{0..999}"])
def test_too_many_names(text):
    with pytest.raises(UserError, match="stands for"):
        expand_braces(text)


def test_the_package_names_the_same_shards():
    text = "s3://bucket/{train,val}-{000000..000012}.tar"
    assert expand_braces(text) == webdataset.shardlists.expand_urls(text)
