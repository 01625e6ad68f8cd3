"""What `gsfl_tune` gives to those who import it."""

import pytest

import gsfl_tune
from gsfl_tune.search import SamplerFactory, Watcher  # imports the room of that name first


def test_every_public_name_is_there():
    for name in gsfl_tune.__all__:
        assert callable(getattr(gsfl_tune, name)), name
    with pytest.raises(AttributeError, match="nonsense"):
        _ = gsfl_tune.nonsense


def test_search_is_the_function_whatever_was_imported_before(tmp_path):
    from gsfl_tune import Experiment, UserError, search

    assert SamplerFactory
    assert Watcher
    experiment = Experiment.parse("name: x\ndata: {source: typefaces}\n")
    with pytest.raises(UserError, match="found no run to resume"):
        search(experiment, tmp_path / "run", resume=True)
