"""``gsfl-tune push``, and bundles of the hub in other commands."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.export.test_hub import hub
from tests.hub_server import OWNER, TOKEN

__all__ = ["hub"]


@pytest.fixture
def run(begun, bundle_path):
    shutil.copytree(bundle_path, begun / "best")
    return begun


def test_a_winner_is_published_and_used_from_there(command, hub, run, images):
    answer = command("push", run, f"{OWNER}/zoo", "--message", "the first", "--license", "mit")
    assert answer.code == 0, answer.err
    assert f"published {hub.url}/{OWNER}/zoo" in answer.out
    assert "model.safetensors" in answer.out
    repository = hub.repositories[f"{OWNER}/zoo"]
    assert repository.messages[-1] == "the first"
    place = f"hf://{OWNER}/zoo@{repository.branches['main']}"
    assert answer.out.rstrip().endswith(place)
    assert b"license: mit" in repository.commits[repository.branches["main"]]["README.md"]
    assert TOKEN not in answer.out + answer.err
    found = command("predict", f"hf://{OWNER}/zoo", images[0], "--json")
    assert found.code == 0, found.err
    here = command("predict", run / "best", images[0], "--json")
    assert json.loads(found.out) == json.loads(here.out)
    assert TOKEN not in found.out + found.err


def test_refusals_are_bad_input(command, hub, run, images):
    for arguments, words in [
        (("push", run, "bert/zoo"), "belongs to somebody else"),
        (("push", run / "nothing", "zoo"), "no such bundle"),
        (("predict", f"hf://{OWNER}/nothing", images[0]), "no such model"),
    ]:
        answer = command(*arguments)
        assert answer.code == 2
        assert words in answer.err
        assert TOKEN not in answer.err
