"""Names that hold a word for a part: understood as the `datasets` library does, or refused."""

from __future__ import annotations

import itertools
import json
import tarfile
from pathlib import Path

import datasets.data_files
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Value

from gsfl_tune.data import prepare
from gsfl_tune.data.sources import FolderSource, create_source
from gsfl_tune.data.sources._remote import PARQUET, find_files
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill, picture, save

# Two parts of a set, whose words are joined to other letters.
GLUED = [
    ("birdstrain", "birdstest"),
    ("cubtest", "cub"),
    ("cubtrain", "cub-test"),
    ("xtrain", "xval"),
    ("minitrain", "minitest"),
    ("trainfull", "testfull"),
    ("subtrain", "subvalid"),
    ("birdstrainset", "birdstestset"),
    ("birds_trn", "birds_tst"),
]
PARTS = {
    word: str(split)
    for split, words in datasets.data_files.SPLIT_KEYWORDS.items()
    for word in words
}
FORMS = [
    "{}.parquet", "birds_{}.parquet", "{}-birds.parquet", "birds.{}.v2.parquet", "birds {}.parquet",
    "{}-00000-of-00002.parquet", "{}0.parquet", "2024{}.parquet", "data/{}-00000-of-00001.parquet",
    "{}/0000.parquet", "default/{}/0000.parquet", "birds-{}/a.parquet",
    "default/partial-{}/0.parquet",
    "birds{}.parquet", "{}birds.parquet", "my{}.parquet", "birds{}/0.parquet", "{}set.parquet",
]  # fmt: skip


def write(file: Path, seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    content = save(file.parent / f".{file.stem}.png", seed).read_bytes()
    rows = [{"image": {"bytes": content, "path": f"{seed}.png"}, "label": n} for n in (0, 1) * 4]
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


def theirs(root: Path) -> dict[str, set[str]]:
    """The splits of every file, as `load_dataset` decides."""
    patterns = datasets.data_files.get_data_patterns(str(root))
    found: dict[str, set[str]] = {}
    for split, files in datasets.data_files.DataFilesDict.from_patterns(
        patterns, str(root), allowed_extensions=[".parquet"]
    ).items():
        for file in files:
            # Names of shards may be any.
            found.setdefault(file, set()).add(PARTS.get(str(split), str(split)))
    return found


@pytest.mark.parametrize(
    ("form", "every"),
    [
        *((form, 3) for form in FORMS),
        *(pytest.param(form, 1, marks=pytest.mark.slow) for form in FORMS),
    ],
)
def test_the_parts_of_the_datasets_library(tmp_path, form, every):
    """For pairs of words for two parts; what it would pool is understood or refused."""
    pairs = [pair for pair in itertools.combinations(PARTS, 2) if PARTS[pair[0]] != PARTS[pair[1]]]
    # Every form has pairs of its own, so that all pairs are tried with one or another.
    for number, pair in enumerate(pairs[FORMS.index(form) % every :: every]):
        root = tmp_path / str(number)
        for word in pair:
            file = root / form.format(word)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        splits = theirs(root)
        try:
            ours = {file.name: {file.part} for file in find_files(str(root), tmp_path, PARQUET)}
        except UserError:
            ours = None
        if set.union(*splits.values()) != {"train"}:
            assert ours == splits
        elif ours is not None:
            # It knows neither name, and would train on all.
            assert sorted(map(str, ours.values())) == sorted(str({PARTS[word]}) for word in pair)


@pytest.mark.parametrize("names", GLUED)
def test_files_whose_names_may_mean_parts_are_refused(tmp_path, cache, names):
    for number, name in enumerate(names):
        write(tmp_path / "files" / f"{name}.parquet", number)
    told = names[1] == "cub-test"
    expected = "these do not: .*cubtrain" if told else f"{names[0]}.* may mean a part"
    with pytest.raises(UserError, match=expected):
        prepare(configure("parquet", tmp_path / "files"), cache_dir=cache)
    listed = [str(tmp_path / "files" / f"{name}.parquet") for name in names]
    with pytest.raises(UserError, match=expected):
        prepare(configure("parquet", listed), cache_dir=cache)
    for name in names:
        (tmp_path / "folders" / name).mkdir(parents=True)
        write(tmp_path / "folders" / name / "0000.parquet")
    with pytest.raises(UserError):
        create_source(configure("parquet", tmp_path / "folders"), cache)


def test_what_to_do_is_said(tmp_path, cache):
    for number, name in enumerate(("birdstrain", "birdstest")):
        write(tmp_path / f"{name}-00000-of-00001.parquet", number)
    with pytest.raises(UserError) as error:
        create_source(configure("parquet", tmp_path), cache)
    assert str(error.value) == (
        "data.path: birdstest-00000-of-00001, birdstrain-00000-of-00001 may mean a part (train, "
        "validation, test) and cannot be understood: put one of `-._ ` between that word and the "
        "rest (birds_train), or rename them"
    )


def test_images_without_labels_may_have_any_names(tmp_path, cache):
    fill(tmp_path / "birds", {"a": 6, "b": 6})
    for number, name in enumerate(("birdstrain", "birdstest", "train_test")):
        write(tmp_path / "more" / f"{name}.parquet", 100 + number)
    config = configure("folder", tmp_path / "birds", unlabelled=str(tmp_path / "more"))
    assert len(prepare(config, cache_dir=cache).unlabelled) == 24


@pytest.mark.parametrize("names", [names for names in GLUED if names[1] != "cub"])
def test_folders_whose_names_may_mean_parts_are_refused(tmp_path, names):
    fill(tmp_path, {f"{name}/{kind}": 1 for name in names for kind in ("wren", "robin")})
    (problem,) = FolderSource(str(tmp_path)).problems
    assert f"{names[0]}" in problem
    assert "may mean a part" in problem
    source = FolderSource(str(tmp_path), classes="path")
    assert len(source.classes) == 4
    assert not source.problems


@pytest.mark.parametrize("names", [("minitrain", "test"), ("cubtest", "cub"), ("test", "subtrain")])
def test_a_folder_beside_a_part_with_the_same_folders(tmp_path, names):
    fill(tmp_path, {f"{name}/{kind}": 1 for name in names for kind in ("wren", "robin")})
    (problem,) = FolderSource(str(tmp_path)).problems
    assert "may mean a part" in problem


def test_two_folders_of_images_that_may_be_parts(tmp_path):
    fill(tmp_path, {"minitrain": 2, "test": 2})
    (problem,) = FolderSource(str(tmp_path)).problems
    assert problem.startswith(f"{tmp_path}: minitrain may mean a part")


@pytest.mark.parametrize(
    "names",
    [
        ("Strain", "Sprain"),
        ("Contest", "Con", "Protest"),
        ("latest", "valley", "Terrain", "strain"),
        ("valley", "ley", "test"),
        ("interval", "inter"),
        ("device", "ice", "value", "trainer", "testament"),
        ("strain", "rain", "test tube"),
    ],
)
@pytest.mark.parametrize("inside", ["", "/{}-1"])
def test_classes_whose_names_hold_such_letters(tmp_path, names, inside):
    fill(tmp_path, {name + inside.format(name): 1 for name in names})
    source = FolderSource(str(tmp_path))
    assert source.classes == sorted(names)
    assert not source.problems


def test_shards_whose_names_may_mean_parts_are_refused(tmp_path, cache):
    for name in ("birdstrain-000", "birdstest-000"):
        with tarfile.open(tmp_path / f"{name}.tar", "w"):
            pass
    with pytest.raises(UserError, match="birdstest-000, birdstrain-000 may mean a part"):
        create_source(configure("webdataset", tmp_path), cache)


def test_tables_whose_names_may_mean_parts_are_refused(tmp_path, cache):
    for name in ("birdstrain", "birdstest"):
        save(tmp_path / f"{name}.png", 1)
        (tmp_path / f"{name}.csv").write_text(f"file,label\n{name}.png,wren\n")
        content = {"images": [], "annotations": [], "categories": []}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    for source in ("csv", "coco"):
        with pytest.raises(UserError, match="birdstest, birdstrain may mean a part"):
            create_source(configure(source, tmp_path), cache)


def test_exports_and_splits_whose_names_may_mean_parts_are_refused(tmp_path, cache):
    for number, name in enumerate(("birdstrain", "birdstest")):
        save(tmp_path / "fiftyone" / name / "data" / "a.png", number)
        labels = {"classes": ["wren", "robin"], "labels": {"a": number}}
        (tmp_path / "fiftyone" / name / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(UserError, match="birdstest, birdstrain may mean a part"):
        create_source(configure("fiftyone", tmp_path / "fiftyone"), cache)
    content = picture(1).tobytes()
    rows = {"image": [content] * 2, "label": [0, 1]}
    features = Features({"image": Value("binary"), "label": Value("int64")})
    split = Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"birdstrain": split, "birdstest": split}).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match="birdstrain, birdstest may mean a part"):
        create_source(configure("arrow", tmp_path / "saved"), cache)
