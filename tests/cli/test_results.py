"""``gsfl-tune results``."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest


def test_json_of_a_finished_run_in_a_process(process, finished):
    answer = process("results", finished, "--json")
    assert (answer.code, answer.err) == (0, "")
    content = json.loads(answer.out)
    for model in ("winner", "control"):
        assert set(content[model]["test"]["accuracy"]) == {"mean", "std", "values"}
        assert set(content[model]["validation"]["accuracy"]) == {"mean", "std", "values"}
        assert "config" in content[model]
    assert content["difference"]["interval"]["low"] == -0.01
    assert content["trials"]["PRUNED"] == 1


def test_text_answers_first(command, finished):
    answer = command("results", finished)
    assert answer.code == 0
    assert answer.out.startswith("birds: test accuracy 72.0 % (68.1 to 75.4), control 70.0 %")


def test_csv_is_the_table_of_trials(command, under_way):
    answer = command("results", under_way, "--csv")
    table = pd.read_csv(io.StringIO(answer.out))
    assert answer.code == 0
    assert list(table["state"]) == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "RUNNING", "COMPLETE"]
    assert table["params.model.groups.count"].iloc[1] == 12


def test_an_unfinished_run_is_no_error(command, under_way):
    text, content = command("results", under_way), command("results", under_way, "--json")
    assert (text.code, content.code) == (0, 0)
    assert "not finished" in text.out
    assert json.loads(content.out)["status"] == "unfinished"


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"]])
def test_a_wrong_path_is_bad_input(command, tmp_path, form):
    answer = command("results", tmp_path / "nothing", *form)
    assert (answer.code, answer.out) == (2, "")
    assert "no such run directory" in answer.err
