import re
from pathlib import Path

import pytest

from gsfl_tune.cli import main
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.fields import leaves, sections
from gsfl_tune.experiment.reference import CONDITIONS, yaml_reference

COMMITTED = Path(__file__).parents[2] / "docs" / "reference" / "yaml.md"
BASE = "name: x\ndata: {source: typefaces}\n"


def test_committed_page_is_that_of_the_code(capsys):
    assert main(["schema", "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed == COMMITTED.read_text(encoding="utf-8"), (
        "run: gsfl-tune schema --markdown > docs/reference/yaml.md"
    )


def test_every_key_has_a_row_with_its_default():
    page = yaml_reference()
    for path, leaf in leaves().items():
        key = path.rpartition(".")[2]
        assert re.search(rf"^\| `{key}` \|", page, re.MULTILINE), path
        assert "|  |" not in page, "a cell is empty"
        if isinstance(leaf.default, str):
            assert f"`{leaf.default}`" in page


def test_conditions_name_keys_that_exist():
    for path in CONDITIONS:
        assert path in leaves() or path.rstrip(".") in sections(), path
    page = yaml_reference()
    assert "*When:* pooling `compact_bilinear`." in page
    assert "*When:* `training.finetune.epochs` above 0." in page


# Where the examples of the grammar belong.
PLACES = {
    "backbone": "model",
    "count": "model.groups",
    "dropout": "model",
    "size": "model",
    "learning_rate": "training.head",
    "latent_dim": "model",
    "blocks": "training.finetune",
}


def examples():
    rows = re.findall(
        r"^\| [^|]+ \| (?:[^|]+ \| )?`(\w+): (.+?)` \|", yaml_reference(), re.MULTILINE
    )
    return [(key, value) for key, value in rows if value.startswith(("{", "["))]


def test_there_is_an_example_of_every_form():
    text = " ".join(value for _, value in examples())
    for word in ("choice", "int", "float", "log", "step", "default", "when", "else"):
        assert f"{word}:" in text


@pytest.mark.parametrize(("key", "value"), examples())
def test_examples_are_good(key, value):
    experiment = Experiment.parse(
        BASE, overrides=["training.finetune.epochs=1", f"{PLACES[key]}.{key}={value}"]
    )
    assert len(experiment.space)
