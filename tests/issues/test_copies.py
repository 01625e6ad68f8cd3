"""Copies across parts, and pages with more of them than anybody looks at."""

from __future__ import annotations

import shutil

from gsfl_tune.data import prepare
from gsfl_tune.experiment.config import Config
from gsfl_tune.issues import find_issues, issues_csv, issues_page
from tests.data.conftest import configure, fill, save


def found_in(folder, cache):
    data = configure("folder", folder)
    dataset = prepare(data, cache_dir=cache)
    config = Config(name="t", data=data)
    return find_issues(dataset, config, use_features=False), dataset


def test_a_training_image_that_is_in_the_test_part_is_suggested_to_go(tmp_path):
    folder = tmp_path / "birds"
    fill(folder / "train", {"robin": 6, "wren": 6})
    fill(folder / "test", {"robin": 2, "wren": 2}, seed=5000)
    shutil.copy(folder / "test" / "wren" / "000.png", folder / "train" / "wren" / "again.png")
    shutil.copy(folder / "train" / "robin" / "001.png", folder / "train" / "robin" / "twin.png")
    found, dataset = found_in(folder, tmp_path / "cache")
    copies = found.of("near_duplicate")
    first, second = copies[:2]
    assert {(each.part, each.suggestion) for each in (first, second)} == {
        ("test", ""),
        ("left out", "leave out"),
    }
    assert first.score == second.score > copies[2].score == copies[3].score
    text = issues_page(found, dataset)
    assert "2 images, the same bytes; in left out, test" in text
    # Also the one that no part has is shown.
    assert text.count("data:image/jpeg;base64,") == 4


def test_a_page_shows_three_hundred_of_a_kind_and_counts_the_rest(tmp_path):
    folder = tmp_path / "birds"
    for number in range(160):
        for name in ("a", "b"):
            save(folder / f"class {number % 2}" / f"{number:03d}{name}.png", number)
    found, dataset = found_in(folder, tmp_path / "cache")
    assert found.counts["near_duplicate"] == 320
    text = issues_page(found, dataset)
    assert text.count('<li class="find">') == 300
    assert "and 20 more in issues.csv" in text
    assert len(issues_csv(found).splitlines()) == 321
