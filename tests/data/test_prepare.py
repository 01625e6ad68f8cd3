from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import textwrap

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.data import load_square, prepare
from gsfl_tune.data.image_file import Reading
from gsfl_tune.experiment.errors import UserError
from tests import warm
from tests.data.conftest import configure, fill, picture, save


def decoded_files(cache):
    return sorted((cache / "decoded").glob("*.arrow"))


def states(files):
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "images", {"cat": 12, "dog": 10, "emu": 8})


def test_images_labels_and_paths_belong_together(folder, cache):
    dataset = prepare(configure("folder", folder), cache_dir=cache)
    assert dataset.classes == ["cat", "dog", "emu"]
    assert dataset.class_count == 3
    assert dataset.known_groups is None
    seen = set()
    for images in (dataset.pool, dataset.test):
        assert images.side == 19
        squares = images.gather(np.arange(len(images)))
        for pixels, path, label in zip(squares, images.paths, images.labels, strict=True):
            np.testing.assert_array_equal(pixels, load_square(path, 19)[0])
            assert dataset.classes[label] in path
            seen.add(path)
    assert len(seen) == 30
    assert dataset.pool.labels.dtype == np.int64
    index = np.concatenate([dataset.train_index, dataset.validation_index])
    np.testing.assert_array_equal(np.sort(index), np.arange(len(dataset.pool)))
    assert np.bincount(dataset.test.labels).tolist() == [2, 2, 2]


def test_gather_takes_any_order_and_repeats(folder, cache):
    pool = prepare(configure("folder", folder), cache_dir=cache).pool
    every = pool.gather(np.arange(len(pool)))
    index = np.array([5, 0, 5, len(pool) - 1])
    np.testing.assert_array_equal(pool.gather(index), every[index])
    assert pool.gather(np.array([], dtype=np.int64)).shape == (0, 19, 19, 3)
    with pytest.raises(IndexError):
        pool.gather(np.array([len(pool)]))


def test_more_images_than_one_record_batch(tmp_path, cache):
    root = fill(tmp_path / "many", {"a": 200, "b": 150})
    pool = prepare(configure("folder", root), cache_dir=cache, side=4).pool
    for position in (0, 255, 256, len(pool) - 1):
        np.testing.assert_array_equal(
            pool.gather(np.array([position]))[0], load_square(pool.paths[position], 4)[0]
        )


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_the_cache_holds_what_single_images_give(tmp_path, cache, fit):
    root = fill(tmp_path / "images", {"a": 6, "b": 6})
    dataset = prepare(configure("folder", root, fit=fit), cache_dir=cache)
    for position, path in enumerate(dataset.pool.paths):
        np.testing.assert_array_equal(
            dataset.pool.gather(np.array([position]))[0], load_square(path, 19, fit)[0]
        )


def test_a_second_start_decodes_nothing(folder, cache):
    first = prepare(configure("folder", folder), cache_dir=cache)
    before = states(decoded_files(cache))
    calls = []
    second = prepare(
        configure("folder", folder), cache_dir=cache, progress=lambda *counts: calls.append(counts)
    )
    assert not calls
    assert states(decoded_files(cache)) == before
    assert second.digest == first.digest
    assert second.pool.digest == first.pool.digest
    np.testing.assert_array_equal(second.train_index, first.train_index)


def test_a_second_start_reads_no_image_whose_file_is_unchanged(folder, cache):
    first = prepare(configure("folder", folder), cache_dir=cache)
    for file in folder.rglob("*.png"):
        status = file.stat()
        file.write_bytes(b"x" * status.st_size)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = prepare(configure("folder", folder), cache_dir=cache)
    assert second.digest == first.digest
    np.testing.assert_array_equal(
        second.pool.gather(second.train_index), first.pool.gather(first.train_index)
    )


def test_a_changed_image_is_noticed(folder, cache):
    first = prepare(configure("folder", folder), cache_dir=cache)
    path = first.pool.paths[0]
    save(folder / os.path.relpath(path, folder), 77777, (30, 30))
    second = prepare(configure("folder", folder), cache_dir=cache)
    assert second.digest != first.digest
    for images in (second.pool, second.test):
        if path in images.paths:
            pixels = images.gather(np.array([images.paths.index(path)]))[0]
            np.testing.assert_array_equal(pixels, load_square(path, 19)[0])
            break
    else:
        pytest.fail("the changed image is gone")


def test_moved_images_are_not_decoded_again(folder, cache, tmp_path):
    first = prepare(configure("folder", folder), cache_dir=cache)
    before = states(decoded_files(cache))
    shutil.move(folder, tmp_path / "elsewhere")
    second = prepare(configure("folder", tmp_path / "elsewhere"), cache_dir=cache)
    assert states(decoded_files(cache)) == before
    assert second.pool.digest == first.pool.digest


def test_the_digest_tells_geometry_and_split(folder, cache):
    digests = {
        prepare(configure("folder", folder, **values), cache_dir=cache).pool.digest
        for values in ({}, {"fit": "pad"}, {"image_size": 32}, {"split": {"seed": 1}})
    }
    assert len(digests) == 4
    # Another seed of the split decodes nothing: three geometries, three files.
    assert len(decoded_files(cache)) == 3


def test_a_given_test_part_is_decoded_at_its_first_use(tmp_path, cache):
    root = fill(tmp_path / "images", {f"{p}/{c}": 5 for p in ("train", "test") for c in "ab"})
    dataset = prepare(configure("folder", root), cache_dir=cache, parts=("pool",))
    assert len(decoded_files(cache)) == 1
    assert len(dataset.test) == 10
    assert len(decoded_files(cache)) == 2


def test_broken_images_are_skipped_counted_and_listed(folder, cache):
    (folder / "cat" / "999.jpg").write_bytes(b"no image")
    whole = (folder / "dog" / "000.png").read_bytes()
    (folder / "dog" / "half.png").write_bytes(whole[: len(whole) // 2])
    (folder / "emu" / "empty.jpg").touch()
    (folder / "emu" / "gone.png").symlink_to(folder / "nowhere.png")
    config = configure("folder", folder, max_broken=0.1)
    for _ in range(2):  # decoded, and from the cache
        dataset = prepare(config, cache_dir=cache)
        broken = {os.path.basename(image.path): image.reason for image in dataset.broken}
        assert set(broken) == {"999.jpg", "half.png", "empty.jpg"}
        assert all(broken.values())
        assert broken["999.jpg"] == "not an image that Pillow can read"
        assert len(dataset.pool) + len(dataset.test) == 30
        assert not {image.path for image in dataset.broken} & {
            *dataset.pool.paths,
            *dataset.test.paths,
        }
        index = np.concatenate([dataset.train_index, dataset.validation_index])
        np.testing.assert_array_equal(np.sort(index), np.arange(len(dataset.pool)))
        for position, path in enumerate(dataset.pool.paths):
            np.testing.assert_array_equal(
                dataset.pool.gather(np.array([position]))[0], load_square(path, 19)[0]
            )


def test_too_many_broken_images_are_an_error_that_lists_ten(folder, cache):
    for number in range(12):
        (folder / "cat" / f"broken{number:02d}.jpg").write_bytes(bytes([number]))
    with pytest.raises(UserError) as error:
        prepare(configure("folder", folder), cache_dir=cache)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("12 of 42 images are broken")
    assert "data.max_broken (1.00%)" in lines[0]
    assert len(lines) == 12
    assert lines[-1] == "  and 2 more"


def test_a_class_that_broken_images_leave_too_small_is_an_error(folder, cache):
    fill(folder, {"fox": 5}, seed=50_000)
    for file in sorted((folder / "fox").iterdir())[:2]:
        file.write_bytes(file.name.encode())
    with pytest.raises(UserError, match=r"after 2 broken image.* were skipped: .*fox"):
        prepare(configure("folder", folder, max_broken=0.5), cache_dir=cache)


def test_broken_images_do_not_use_up_the_places_of_a_small_class(folder, cache):
    fill(folder, {"fox": 9}, seed=50_000)
    for file in sorted((folder / "fox").iterdir())[:5]:
        file.write_bytes(file.name.encode())
    dataset = prepare(configure("folder", folder, max_broken=0.5), cache_dir=cache)
    counts = dataset.summary()["class_counts"]["fox"]
    assert counts == {"train": 2, "validation": 1, "test": 1}


def test_identical_images_stay_together_and_are_reported(folder, cache):
    for number in range(5):
        shutil.copy(folder / "cat" / "003.png", folder / "cat" / f"copy{number}.png")
    dataset = prepare(configure("folder", folder), cache_dir=cache)
    assert [len(group) for group in dataset.duplicates.groups] == [6]
    parts = {
        "train": {dataset.pool.paths[i] for i in dataset.train_index},
        "validation": {dataset.pool.paths[i] for i in dataset.validation_index},
        "test": set(dataset.test.paths),
    }
    holders = [p for p, paths in parts.items() if paths & set(dataset.duplicates.groups[0])]
    assert len(holders) == 1


def test_a_twin_of_a_given_test_image_leaves_training(tmp_path, cache):
    root = fill(tmp_path / "images", {f"{p}/{c}": 6 for p in ("train", "test") for c in "ab"})
    shutil.copy(root / "test" / "a" / "000.png", root / "train" / "a" / "twin.png")
    dataset = prepare(configure("folder", root), cache_dir=cache)
    assert [os.path.basename(path) for path in dataset.duplicates.dropped] == ["twin.png"]
    assert not any(path.endswith("twin.png") for path in dataset.pool.paths)
    assert len(dataset.test) == 12


def test_a_class_that_copies_have_emptied_is_named_with_the_reason(tmp_path, cache):
    root = fill(tmp_path / "images", {f"{p}/{c}": 6 for p in ("train", "test") for c in "abc"})
    for name in ("a", "b"):
        shutil.rmtree(root / "train" / name)
        shutil.copytree(root / "test" / name, root / "train" / name)
    save(root / "train" / "b" / "fresh.png", 99)
    with pytest.raises(UserError) as error:
        prepare(configure("folder", root), cache_dir=cache)
    assert str(error.value).splitlines() == [
        "1 class has no training image left, as each has a copy in the given test or validation "
        "part, where it stays: a (6)",
        "1 class has fewer than 2 different training images: b (1, and 6 left out as copies of the "
        "given test or validation part)",
        "1 class has fewer than 1 different validation image: b (0, and 6 left out as copies of "
        "the given test or validation part)",
    ]


def test_all_problems_are_told_at_once(tmp_path, cache):
    root = fill(tmp_path / "images", {"train/a": 5, "train/b": 1, "train/c": 0, "test/z": 2})
    with pytest.raises(UserError) as error:
        prepare(configure("folder", root), cache_dir=cache)
    text = str(error.value)
    assert "classes that train/ does not have: z" in text
    assert "1 class has no images: c" in text
    assert "fewer than 2 different training images: b" in text


def test_the_summary_is_json_and_counts_right(folder, cache):
    (folder / "cat" / "bad.jpg").write_bytes(b"no")
    config = configure("folder", folder, max_broken=0.5)
    summary = json.loads(json.dumps(prepare(config, cache_dir=cache).summary()))
    assert summary["classes"] == ["cat", "dog", "emu"]
    assert sum(summary["counts"].values()) == 30
    assert sum(summary["class_counts"]["emu"].values()) == 8
    assert [entry["path"].endswith("bad.jpg") for entry in summary["broken"]] == [True]
    assert summary["given_test"] is False


def test_a_cache_directory_that_cannot_be_written_is_explained(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="GSFL_TUNE_CACHE"):
        prepare(configure("folder", folder), cache_dir=tmp_path / "file" / "cache")


PREPARE = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from gsfl_tune.data import image_file, prepare
    from gsfl_tune.experiment.data_config import DataConfig

    root, cache, stop_after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    decode, count = image_file.load_square, 0

    def counted(*arguments, **options):
        global count
        count += 1
        if count == stop_after:
            os.kill(os.getpid(), 9)
        return decode(*arguments, **options)

    image_file.load_square = counted
    dataset = prepare(DataConfig(source="folder", path=str(root), image_size=16), cache_dir=cache)
    print(count, dataset.pool.digest)
    """
)


def prepare_elsewhere(root, cache, stop_after=0):
    return warm.start([root, cache, stop_after], code=PREPARE)


def test_two_processes_decode_once_between_them(folder, cache):
    processes = [prepare_elsewhere(folder, cache) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0].split() for process in processes]
    assert sorted(int(count) for count, _ in outputs) == [0, 30]
    assert outputs[0][1] == outputs[1][1]


def test_kill_9_while_decoding_leaves_nothing_that_is_read(folder, cache):
    process = prepare_elsewhere(folder, cache, stop_after=20)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert not decoded_files(cache)
    dataset = prepare(configure("folder", folder), cache_dir=cache)
    assert len(dataset.pool) + len(dataset.test) == 30
    assert not list(cache.rglob("*.tmp"))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_deep_images_have_one_range_which_test_images_do_not_choose(tmp_path, cache, kind):
    """Each by its own maximum: 0.5 would be grey in one file and white in the next."""
    generator = np.random.default_rng(0)
    root = tmp_path / "data"
    for part, count, top in (("train", 8, 4), ("test", 2, 900)):
        for name in "ab":
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                values = generator.uniform(0, top, (20, 16)).astype(kind)
                values[0, 0] = top if number == 0 else top / 3
                Image.fromarray(values).save(root / part / name / f"{number}.tif")
    dataset = prepare(configure("folder", root), cache_dir=cache)
    assert dataset.reading.float_range == (0.0, 255.0)
    told = " ".join(dataset.notices)
    assert "20 grey images of 32 bits or floats" in told
    assert "to 4: read from 0 (black) to 255 (white); data.value_range sets both" in told
    assert dataset.pool.gather(np.arange(len(dataset.pool))).max() <= 4
    given = prepare(configure("folder", root, value_range=[0, 4]), cache_dir=cache)
    assert given.reading.value_range == (0.0, 4.0)
    assert given.pool.gather(np.arange(len(given.pool))).max() > 200
    # Remembered with the digests.
    assert prepare(configure("folder", root), cache_dir=cache).reading == dataset.reading


def test_images_whose_end_is_missing_are_broken_unless_accepted(tmp_path, cache):
    root = fill(tmp_path / "data", {"a": 8, "b": 8})
    picture(99, (64, 64)).save(tmp_path / "whole.jpg")
    (root / "a" / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-2])
    skipped = prepare(configure("folder", root, max_broken=0.5), cache_dir=cache)
    (broken,) = skipped.broken
    assert "truncated" in broken.reason
    assert "data.truncated: accept" in broken.reason
    accepted = prepare(configure("folder", root, truncated="accept"), cache_dir=cache)
    assert not accepted.broken
    assert len(accepted.pool) + len(accepted.test) == 17


def test_more_pixels_than_allowed_are_broken(tmp_path, cache):
    root = fill(tmp_path / "data", {"a": 8, "b": 8})
    save(root / "a" / "large.png", 99, (100, 100))
    config = configure("folder", root, max_broken=0.5, max_pixels=9_999)
    (broken,) = prepare(config, cache_dir=cache).broken
    assert "100 x 100 pixels are more than data.max_pixels" in broken.reason
    # Also as a bundle reads them, which knows the range of values alone.
    reading = Reading(value_range=(0.0, 9.0))
    dataset = prepare(config, cache_dir=cache, reading=reading)
    assert dataset.broken == [broken]
    assert dataset.reading == dataclasses.replace(reading, max_pixels=9_999)
    assert not prepare(configure("folder", root), cache_dir=cache).broken


def test_a_model_can_say_what_it_has_seen(folder, cache):
    def seen(*, validation=True, **settings):
        config = configure("folder", folder, **settings)
        return prepare(config, cache_dir=cache).trained_on(validation=validation)

    record = seen()
    assert record == seen()
    assert record["validation"]
    assert not seen(validation=False)["validation"]
    # Another split divides the same images, and has other test images.
    other = seen(split={"seed": 1})
    assert other["images"] == record["images"]
    assert other["test"] != record["test"]
    # The same test images, whatever is trained on.
    few = seen(shots=2)
    assert (few["images"], few["test"]) == (record["images"], record["test"])
    assert not few["validation"]
    # Another split has other validation images too.
    assert other["held_out"] != record["held_out"]
    shutil.move(folder / "cat" / "000.png", folder / "dog" / "moved.png")
    assert seen()["images"] == record["images"]
    (folder / "dog" / "moved.png").unlink()
    assert seen()["images"] != record["images"]
