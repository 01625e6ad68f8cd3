"""Groups, folders and bursts are in one part alone, also where the source gives the parts."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsfl_tune.cli import main
from gsfl_tune.data import prepare
from gsfl_tune.data.grouping import Grouping, together
from gsfl_tune.data.splits import divide
from gsfl_tune.experiment.data_config import SplitConfig
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure
from tests.data.test_held_out import parts_of, photograph, save_scene
from tests.data.test_splits import PARTS, digest


def cows(root: Path, plan: dict[str, list[int]], *, images: int = 3) -> Path:
    """A CSV file with columns for part and animal; every animal of a part has some images there.

    Args:
        root: Where images and file are.
        plan: Numbers of the animals of each part, which may have the same ones.
        images: Images of an animal in a part.
    """
    rows = ["file,label,split,animal"]
    for order, (part, animals) in enumerate(plan.items()):
        for animal in animals:
            for number in range(images):
                file = f"{part}/{animal}-{number}.png"
                save_scene(root / file, 1000 * order + 10 * animal + number)
                rows.append(f"{file},{'ab'[animal % 2]},{part},cow {animal}")
    table = root / "cows.csv"
    table.write_text("\n".join(rows) + "\n")
    return table


def animals_of(dataset) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {"train": set(), "validation": set(), "test": set()}
    for path, part in parts_of(dataset).items():
        found[part].add(int(Path(path).stem.split("-")[0]))
    return found


TRAIN, TEST = [*range(20)], [18, 19, 20, 21]


def test_an_animal_of_a_given_test_part_is_left_out_of_training(tmp_path, cache):
    table = cows(tmp_path, {"train": TRAIN, "test": TEST})
    dataset = prepare(configure("csv", table, group_column="animal"), cache_dir=cache)
    found = animals_of(dataset)
    assert found["test"] == set(TEST)
    assert found["train"] | found["validation"] == set(TRAIN) - set(TEST)
    assert not found["train"] & found["validation"]
    told = (
        "6 images (6 training) of 2 groups are left out, as a given test or validation part has "
        "others of the same group; data.split.by: image keeps them"
    )
    assert told in dataset.notices
    summary = dataset.summary()
    assert len(summary["left_out_of_groups"]) == 6
    assert {Path(path).name.split("-")[0] for path in summary["left_out_of_groups"]} == {"18", "19"}
    assert summary["duplicates"]["dropped"] == []
    assert summary["counts"]["test"] == 12
    # It is found once, and said again by a second process.
    again = prepare(configure("csv", table, group_column="animal"), cache_dir=cache)
    assert again.digest == dataset.digest
    assert told in again.notices
    kept = configure("csv", table, group_column="animal", split={"by": "image"})
    assert animals_of(prepare(kept, cache_dir=cache))["train"] & set(TEST)


def test_with_both_parts_given_each_keeps_what_the_next_one_loses(tmp_path, cache):
    plan = {"train": [*range(12)], "validation": [10, 11, 12, 13, 14, 15], "test": [14, 15, 16, 17]}
    table = cows(tmp_path, plan)
    for by in ("auto", "group"):
        config = configure("csv", table, group_column="animal", split={"by": by})
        dataset = prepare(config, cache_dir=cache)
        assert animals_of(dataset) == {
            "train": set(range(10)), "validation": {10, 11, 12, 13}, "test": {14, 15, 16, 17},
        }  # fmt: skip
        (told,) = [line for line in dataset.notices if "left out" in line]
        assert told.startswith("12 images (6 training, 6 validation) of 4 groups are left out")


def test_without_shared_groups_given_parts_stay_as_they_are(tmp_path, cache):
    plan = {"train": [*range(10)], "validation": [10, 11], "test": [12, 13]}
    table = cows(tmp_path, plan)
    dataset = prepare(configure("csv", table, group_column="animal"), cache_dir=cache)
    assert dataset.digest == prepare(configure("csv", table), cache_dir=cache).digest
    assert not any("left out" in line for line in dataset.notices)
    assert dataset.summary()["left_out_of_groups"] == []


def test_a_class_that_loses_all_its_images_is_named_with_the_reason(tmp_path, cache):
    # All animals of class b are in the test part too.
    table = cows(tmp_path, {"train": [0, 2, 4, 6, 1, 3], "test": [8, 1, 3]})
    with pytest.raises(UserError) as error:
        prepare(configure("csv", table, group_column="animal"), cache_dir=cache).summary()
    assert (
        "1 class has no training image left, as each has a copy or an image of its group in the "
        "given test or validation part, where it stays: b (6)"
    ) in str(error.value)


def test_folders_of_a_table_too(tmp_path, cache):
    rows = ["file,label,split"]
    for place in range(12):
        for number in range(4):
            file = f"place {place}/{number}.png"
            save_scene(tmp_path / file, 10 * place + number)
            part = "test" if place in (0, 1) and number == 0 else "train"
            rows.append(f"{file},{'ab'[place % 2]},{part}")
    table = tmp_path / "t.csv"
    table.write_text("\n".join(rows) + "\n")
    dataset = prepare(configure("csv", table, split={"by": "folder"}), cache_dir=cache)
    folders: dict[str, set[str]] = {}
    for path, part in parts_of(dataset).items():
        folders.setdefault(str(Path(path).parent), set()).add(part)
    assert len(folders) == 12
    assert all(len(parts) == 1 for parts in folders.values())
    (told,) = [line for line in dataset.notices if "left out" in line]
    assert told.startswith("6 images (6 training) of 2 folders are left out")


def bursts(root: Path) -> Path:
    """Bursts of four photographs, of which two have one in the given test part."""
    for label, name in enumerate("ab"):
        for burst in range(10):
            for number in range(4):
                taken = datetime(2026, 5, 1) + timedelta(hours=burst, seconds=10 * number)
                part = "test" if burst == 9 and number == 0 else "train"
                file = root / part / name / f"{burst}-{number}.jpg"
                photograph(file, 1000 * label + 10 * burst + number, taken)
    return root


def test_bursts_are_left_out_where_asked_for_and_counted_else(tmp_path, cache):
    root = bursts(tmp_path / "data")
    asked = prepare(configure("folder", root, split={"by": "time"}), cache_dir=cache)
    assert not any("9-" in path for path in asked.pool.paths)
    (told,) = [line for line in asked.notices if "left out" in line]
    assert told.startswith("6 images (6 training) of 2 bursts are left out")
    auto = prepare(configure("folder", root), cache_dir=cache)
    assert len(auto.pool) == 78
    (told,) = [line for line in auto.notices if "leaves them out" in line]
    assert told.startswith("6 images are of a burst of photographs (EXIF times or camera numbers)")


@pytest.mark.parametrize(
    ("by", "message"),
    [
        ("group", "the source says no group"),
        ("folder", "the images of every class lie in one folder"),
        ("near_duplicate", "near_duplicate divides nothing, as the source gives both parts"),
    ],
)
def test_what_cannot_be_kept_apart_in_given_parts_is_said(tmp_path, cache, by, message):
    table = cows(tmp_path, {"train": [*range(8)], "validation": [8, 9], "test": [10, 11]})
    rows = [line.replace("train/", "").replace("validation/", "").replace("test/", "")
            for line in table.read_text().splitlines()]  # fmt: skip
    for file in list(tmp_path.glob("*/*.png")):
        file.rename(tmp_path / file.name)
    table.write_text("\n".join(rows) + "\n")
    plain = prepare(configure("csv", table), cache_dir=cache)
    dataset = prepare(configure("csv", table, split={"by": by}), cache_dir=cache)
    assert any(message in line for line in dataset.notices)
    assert dataset.digest == plain.digest


def test_check_and_data_say_how_many(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    table = cows(tmp_path, {"train": TRAIN, "test": TEST})
    file = tmp_path / "cows.yaml"
    file.write_text(
        f"name: cows\ndata: {{source: csv, path: '{table}', group_column: animal}}\n"
        "model: {backbone: resnet18, weights: none}\n"
    )
    told = "6 images (6 training) of 2 groups are left out, as a given test or validation part has"
    for _ in range(2):
        # Before the images were read, and again with what was said then.
        assert main(["check", str(file)]) == 0
        assert capsys.readouterr().out.count(f"Data: {told}") == 1
        sheet = ["--sheet", str(tmp_path / "sheet.png")]
        assert main(["data", str(file), *sheet]) == 0
        shown = capsys.readouterr().out
        assert told in shown
        assert "left out, as the test or validation part has others of their group: 6" in shown
    assert main(["data", str(file), *sheet, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["left_out_of_groups"]) == 6


@settings(deadline=None)  # the first example loads scipy
@given(
    images=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 8), PARTS),
        min_size=1,
        max_size=60,
    ),
    seed=st.integers(0, 5),
)
def test_no_group_is_ever_in_two_parts(images, seed):
    labels, copies, groups, parts = map(np.array, zip(*images, strict=True))
    units = together(copies, groups)
    grouping = Grouping(copies, groups, bound=units)
    digests = [digest(number) for number in range(len(images))]
    split = divide(labels.tolist(), parts.tolist(), digests, SplitConfig(seed=seed), grouping)
    held = [set(units[part].tolist()) for part in (split.train, split.validation, split.test)]
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    every = np.concatenate([split.train, split.validation, split.test, split.dropped])
    np.testing.assert_array_equal(np.sort(every), np.arange(len(images)))
    assert set(split.strayed) <= set(split.dropped)
    assert {row for row, part in enumerate(parts) if part == "test"} <= set(split.test.tolist())
