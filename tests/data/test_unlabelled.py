"""Images without labels: which there are, which are left out, and how they are shown."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from gsfl_tune.data import prepare
from gsfl_tune.data.augment import Augment, crop_boxes
from gsfl_tune.data.batch_share import WHOLE_BATCH, BatchShare
from gsfl_tune.data.transforms import Streams
from gsfl_tune.data.unlabelled_batches import WeakAndStrong, unlabelled_batches, weakened
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.experiment.errors import UserError

from .conftest import configure, fill


def scene(seed: int) -> Image.Image:
    """A picture with large shapes, as copies are found by."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path):
    for number, part in enumerate(["train", "validation", "test"]):
        for label in "ab":
            folder = tmp_path / "photos" / part / label
            folder.mkdir(parents=True)
            for index in range(4):
                scene(100 * number + 10 * (label == "b") + index).save(
                    folder / f"{index}.png", compress_level=1
                )
    return tmp_path / "photos"


def test_copies_of_held_out_images_are_left_out_and_counted(photos, tmp_path, cache):
    folder = tmp_path / "more"
    folder.mkdir()
    for seed in range(500, 506):
        scene(seed).save(folder / f"{seed}.png", compress_level=1)
    # Byte for byte, and smaller and brighter as JPEG; a copy of a training image is no harm.
    (folder / "same.png").write_bytes((photos / "test/a/0.png").read_bytes())
    for name, part in (("near", "validation"), ("near_test", "test")):
        image = Image.open(photos / part / "b/1.png").resize((72, 72))
        image.point(lambda v: min(255, round(1.08 * v))).save(folder / f"{name}.jpg", quality=85)
    (folder / "known.png").write_bytes((photos / "train/a/0.png").read_bytes())
    (folder / "broken.png").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("no image")
    plain = prepare(configure("folder", photos), cache_dir=cache)
    dataset = prepare(configure("folder", photos, unlabelled=str(folder)), cache_dir=cache)
    names = {path.rsplit("/", 1)[1] for path in dataset.unlabelled.paths}
    assert names == {*(f"{seed}.png" for seed in range(500, 506)), "known.png"}
    told = "\n".join(dataset.notices)
    assert "3 of 11 images are left out, as they are copies of validation or test images" in told
    assert "1 images cannot be read" in told
    assert ".txt 1" in told
    assert dataset.summary()["unlabelled"] == 7
    # The labelled images are what they were, and another set is other data.
    assert np.array_equal(plain.train_index, dataset.train_index)
    assert plain.pool.digest == dataset.pool.digest
    assert plain.digest != dataset.digest
    assert plain.unlabelled is None


@pytest.mark.parametrize("labels", [True, False])
def test_parquet_with_and_without_labels(photos, tmp_path, cache, labels):
    def content(seed):
        stream = io.BytesIO()
        scene(seed).save(stream, "PNG", compress_level=1)
        return {"bytes": stream.getvalue(), "path": f"{seed}.png"}

    columns = {"image": [content(seed) for seed in range(700, 709)]}
    if labels:
        columns["label"] = [-1] * 9
    file = tmp_path / "tables" / "test-0.parquet"
    file.parent.mkdir()
    pq.write_table(pa.table(columns), file)
    for given in (str(file), [str(file.parent)]):
        dataset = prepare(configure("folder", photos, unlabelled=given), cache_dir=cache)
        assert len(dataset.unlabelled) == 9


def test_what_names_no_image_is_refused(photos, tmp_path, cache):
    (tmp_path / "empty").mkdir()
    copies = tmp_path / "copies"
    copies.mkdir()
    broken, texts = tmp_path / "broken", tmp_path / "texts"
    for file in (broken / "0.png", texts / "notes.txt"):
        file.parent.mkdir()
        file.write_bytes(b"nothing")
    (copies / "0.png").write_bytes((photos / "test/a/0.png").read_bytes())
    for given, message in (
        (str(tmp_path / "empty"), r"data\.unlabelled: .*empty: no image in this folder"),
        (str(tmp_path / "photos/*.gif"), r"no image matches this pattern"),
        (str(copies), r"1 of 1 images are left out.*\n.*no image is left"),
        (str(broken), r"0\.png: not an image that Pillow can read\n(.*\n)+.*no image is left"),
        (str(texts), r"left out: 1 file: \.txt 1\n.*texts: no image in this folder"),
    ):
        config = configure("folder", photos, unlabelled=given)
        with pytest.raises(UserError, match=message):
            _ = prepare(config, cache_dir=cache).unlabelled


SIZE = 24
STRONG = AugmentConfig(scale=0.5, policy="trivial", erasing=1.0, color=0.4)
NORM = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def images(tmp_path, cache):
    fill(tmp_path / "labelled", {"a": 8, "b": 8})
    fill(tmp_path / "more", {"x": 10}, seed=70)
    config = configure("folder", tmp_path / "labelled", unlabelled=str(tmp_path / "more"))
    return prepare(config, side=32, cache_dir=cache).unlabelled


def shown(images, share=WHOLE_BATCH, seed=4, threads=1, **changes):
    transform = WeakAndStrong(STRONG, SIZE, *NORM)
    settings = {"batches": 3, "size": 4, "each": 2, "seed": seed, "epoch": 1, **changes}
    torch.set_num_threads(threads)
    found = unlabelled_batches(images, transform=transform, device="cpu", share=share, **settings)
    return [(weak.clone(), strong.clone()) for weak, strong in found]


def test_the_weak_view_is_a_crop_and_the_strong_one_changed_as_configured(images):
    weak, strong = shown(images)[0]
    assert weak.shape == strong.shape == (8, 3, SIZE, SIZE)
    # An erased rectangle holds the mean, which is 0 after normalisation: in the strong view alone.
    assert all(float((view.abs() < 1e-4).all(0).float().mean()) > 0.01 for view in strong)
    assert not any(bool((view.abs() < 1e-4).all(0).any()) for view in weak)
    # They are those of `Augment` with these rows.
    transform = WeakAndStrong(STRONG, SIZE, *NORM)
    squares = torch.from_numpy(images.gather(np.arange(4)))
    rows = transform.draw_rows(4, torch.Generator().manual_seed(0), Streams(1, 2))
    for mark, config in (
        (0.0, AugmentConfig(scale=0.875**2, ratio=1.0)),
        (1.0, STRONG),
    ):
        found = transform.apply(squares, torch.cat([rows, torch.full((4, 1), mark)], 1))
        assert torch.equal(found, Augment(config, SIZE, *NORM).apply(squares, rows))


def test_a_weak_view_shows_nearly_the_whole_image(images):
    """Shifts of an eighth of the sides, as published, leave 77 % of it in view."""
    for scale, flip in ((0.05, True), (0.35, False)):
        weak = weakened(AugmentConfig(scale=scale, ratio=3, flip=flip, color=1, policy="rand"))
        shown = crop_boxes(torch.rand(1000, 4), weak.scale, weak.ratio)
        assert float(shown[:, 2:].prod(1).min()) >= 0.76
        assert float((shown[:, 2] - shown[:, 3]).abs().max()) < 1e-6
        assert weak.flip == flip
    assert weakened(AugmentConfig(scale=0.9)).scale == 0.9


def test_every_image_is_shown_before_one_is_shown_again(images):
    plain = AugmentConfig(scale=1.0, ratio=1.0, flip=False)
    transform = WeakAndStrong(plain, SIZE, *NORM)
    found = unlabelled_batches(
        images, batches=5, size=2, each=2, seed=0, epoch=0, transform=transform, device="cpu"
    )
    rows = torch.cat([weak.clone() for weak, _ in found]).flatten(1)
    assert len(rows) == 20
    distinct = [len(torch.unique(rows[start : start + 10], dim=0)) for start in (0, 10)]
    assert distinct == [10, 10]


def test_processes_divide_what_one_would_see(images):
    whole = shown(images)
    parts = [shown(images, share=BatchShare(rank, 2)) for rank in range(2)]
    for number, pair in enumerate(whole):
        for place, view in enumerate(pair):
            joined = torch.cat([part[number][place] for part in parts])
            assert torch.equal(joined, view)
    again = shown(images, threads=2)
    torch.set_num_threads(1)
    assert all(
        torch.equal(a, b)
        for one, two in zip(whole, again, strict=True)
        for a, b in zip(one, two, strict=True)
    )
    assert not torch.equal(shown(images, seed=5)[0][0], whole[0][0])
