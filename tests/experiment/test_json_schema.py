import json
from pathlib import Path

import jsonschema
import pytest

from gsfl_tune.experiment.json_schema import json_schema
from gsfl_tune.experiment.nodes import read_yaml
from tests.experiment.test_wrong_files import WRONG

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "search_spaces").glob("*.yaml"))


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_committed_schema_is_that_of_the_code():
    committed = json.loads((ROOT / "docs" / "schema.json").read_text(encoding="utf-8"))
    assert committed == json_schema(), "run: gsfl-tune schema > docs/schema.json"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_files_are_valid(validator, file):
    node = read_yaml(file.read_text(encoding="utf-8"), file.name, [])
    validator.validate(node.plain())


@pytest.mark.parametrize(
    "name",
    [
        "a list",
        "missing data",
        "bad name",
        "text for a number",
        "float for an integer",
        "truth for a number",
        "out of range",
        "unknown word",
        "unknown metric",
        "no choices",
        "choice twice",
        "choice not allowed",
        "three bounds",
        "float range for an integer",
        "range for a word",
        "no distribution",
        "two distributions",
        "unknown option",
        "list without choice",
        "search is not searched",
        "source is not searched",
        "unknown key",
        "when with an unknown comparison",
    ],
)
def test_editors_see_mistakes_too(validator, name):
    node = read_yaml(WRONG[name][0], name, [])
    assert not validator.is_valid(node.plain())


def test_every_leaf_is_described():
    def leaves_of(schema):
        for key, item in schema["properties"].items():
            if "properties" in item:
                yield from leaves_of(item)
            else:
                yield key, item

    for key, leaf in leaves_of(json_schema()):
        assert leaf.get("description"), key
