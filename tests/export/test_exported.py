"""A ``.pt2`` archive is opened by torch only if it holds one program and its tensors."""

from __future__ import annotations

import re
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from gsfl_tune.bundles.files import BundleError
from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.export.exported_file import capture, write_program
from gsfl_tune.export.runtimes import ExportedRuntime

PREPROCESSING = Preprocessing(32, 37, "crop", [0.5] * 3, [0.3] * 3)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    write_program(capture(nn.Linear(4, 2).eval(), torch.zeros(2, 4)), path, {"name": "zoo"})
    return path


def with_entry(program: Path, target: Path, name: str) -> Path:
    """A copy with one more entry, of harmless content."""
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(target, "w") as new:
        for each in old.namelist():
            new.writestr(each, old.read(each))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a name is there already
            new.writestr(name, b"nothing")
    return target


def test_what_was_written_is_read(program):
    runtime = ExportedRuntime(program, PREPROCESSING, inside=False)
    assert runtime.run(torch.zeros(3, 4)).shape == (3, 2)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("model/data/aotinductor/model/x.so", "found model/data/aotinductor/model/x.so in it"),
        ("model/models/other.json", "found model/models/other.json in it"),
        ("model/data/constants/custom_obj_0", "found model/data/constants/custom_obj_0 in it"),
        ("model/data/weights/../model.so", "found model/data/weights/../model.so in it"),
        ("notes.txt", "holds names twice"),
        ("other/archive_format", "holds names twice"),
        ("model/models/model.json", "holds names twice"),
    ],
)
def test_what_export_does_not_write_is_refused(program, tmp_path, monkeypatch, name, complaint):
    path = with_entry(program, tmp_path / "model.pt2", name)
    monkeypatch.setattr(torch.export, "load", lambda path: pytest.fail("torch has opened it"))
    with pytest.raises(BundleError, match=re.escape(complaint)):
        ExportedRuntime(path, PREPROCESSING, inside=False)
