"""``gsfl-tune export``."""

from __future__ import annotations

import shutil

import pytest

from gsfl_tune.export import load_bundle


@pytest.fixture
def run(begun, bundle_path):
    shutil.copytree(bundle_path, begun / "best")
    return begun


def test_exports_in_a_process(process, run, tmp_path):
    out = tmp_path / "to deploy"
    answer = process("export", run, out)
    assert (answer.code, answer.err) == (0, "")
    assert "model.safetensors" in answer.out
    assert load_bundle(out).classes[0] == "ant"


def test_refusals_are_bad_input(command, run, begun, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    answer = command("export", run, tmp_path / "full")
    assert answer.code == 2
    assert "not an empty directory" in answer.err
    answer = command("export", run, tmp_path / "out", "--with-shared")
    assert answer.code == 2
    assert "no shared branch" in answer.err
    shutil.rmtree(run / "best")
    answer = command("export", run, tmp_path / "out")
    assert answer.code == 2
    assert "--resume" in answer.err
    assert not (tmp_path / "out").exists()
