"""A source of an installed package, used as one that is built in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gsfl_tune import plugins
from tests import warm

ROOT = Path(plugins.__file__).parents[1]
EXAMPLE = ROOT / "examples" / "plugin"

PREPARE = """\
import json, sys
from pathlib import Path
import numpy as np
from gsfl_tune.data import prepare
from gsfl_tune.data.sources import count_classes
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.experiment.errors import UserError
told = []
for source in sys.argv[3:]:
    config = DataConfig(source=source, path=sys.argv[1], image_size=16)
    try:
        dataset = prepare(config, side=20, cache_dir=Path(sys.argv[2]))
        squares = dataset.test.gather(np.arange(len(dataset.test)))
        broken = [[image.path, image.reason] for image in dataset.broken]
        told.append([dataset.summary(), squares[:, 0, 0].tolist(), broken, count_classes(config)])
    except UserError as error:
        told.append(str(error))
print(json.dumps(told))
"""

COMMANDS = """\
import contextlib, io, json, sys
from gsfl_tune.cli import main
told = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""

BROKEN = {
    "gone": "my_sources.nothing:Gone",
    "wrong": "my_sources:Wrong",
    "fails": "my_sources:Fails",
    "refuses": "my_sources:Refuses",
    "bare": "my_sources:Bare",
    "outside": "my_sources:Outside",
    "disorder": "my_sources:Disorder",
    "digests": "my_sources:Digests",
    "unread": "my_sources:Unread",
    "folders": "my_sources:Folders",
}

CODE = '''\
from gsfl_tune.data.sources import FileSource, Sample, Source
from gsfl_tune.experiment import UserError
from pathlib import Path
from PIL import Image

class Wrong:
    pass

class Fails(Source):
    def __init__(self, request):
        raise KeyError("a slip")
    def readers(self, positions):
        return iter(())

class Refuses(Fails):
    def __init__(self, request):
        raise UserError("data.path must name a museum")

class Bare(Fails):
    def __init__(self, request):
        pass

class Outside(Source):
    """Everything that can be listed wrong."""
    def __init__(self, request):
        super().__init__()
        self.classes = ["a", "b"]
        self.samples = [Sample(2, None, "x", None), Sample(0, "dev", "x", None)]
        self.known_groups = ["one"]
    def readers(self, positions):
        return iter(())

class Many(Source):
    def __init__(self, request):
        super().__init__()
        self.classes = ["a", "b"]
        self.samples = [Sample(n % 2, None, f"picture {n}", None) for n in range(60)]
    def readers(self, positions):
        for n in positions:
            yield n, lambda n=n: Image.new("RGB", (20, 20), (n, n, n))

class Disorder(Many):
    def readers(self, positions):
        yield from reversed(list(super().readers(positions)))

class Digests(Many):
    def known_digests(self):
        return [b"short"] * 60

class Unread(Many):
    """One of sixty, more than max_broken."""
    def readers(self, positions):
        for n, reader in super().readers(positions):
            yield n, (lambda: {}["lost"]) if n == 7 else reader

class Folders(FileSource):
    """Real files, by a base class that reads them."""
    def __init__(self, request):
        super().__init__()
        self.classes = ["a", "b"]
        folder = request.cache / "mine"
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(24):
            Image.new("RGB", (20, 20), (n, 0, 0)).save(folder / f"{n}.png")
            self.add(folder / f"{n}.png", n % 2, "test" if n > 19 else "train")
        self.notices.append("24 pictures were made")
        self.left_out["too dark"] += 3
'''


def python(code: str, *arguments: str, packages: Path) -> list:
    """Runs a program in a process that has the packages; gives what it prints as JSON."""
    path = f"{packages}{os.pathsep}{ROOT}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = warm.run(arguments, code=code, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Where the example package is installed; PYTHONPATH makes it one of the environment's."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(EXAMPLE, folder / "source")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"),
            *("--no-build-isolation", "--target", folder / "site", source),
        ],
        check=True,
    )
    return folder / "site"


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    """A package of sources that go wrong, each in its way."""
    folder = tmp_path_factory.mktemp("broken")
    info = folder / "my_sources-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-sources\nVersion: 2.0\n")
    lines = [f"{name} = {value}" for name, value in BROKEN.items()]
    (info / "entry_points.txt").write_text("\n".join(["[gsfl_tune.sources]", *lines, ""]))
    (folder / "my_sources.py").write_text(CODE)
    return folder


def arrays(file: Path) -> np.ndarray:
    """A file as MedMNIST's are; gives the test images."""
    random = np.random.default_rng(0)
    content = {}
    for name, count in (("train", 24), ("val", 6), ("test", 6)):
        content[f"{name}_images"] = random.integers(0, 256, (count, 20, 20, 3), dtype=np.uint8)
        content[f"{name}_labels"] = (np.arange(count) % 3)[:, None].astype(np.uint8)
    np.savez(file, **content)
    return content["test_images"]


def test_the_example_is_prepared_like_a_source_that_is_built_in(installed, tmp_path):
    images = arrays(tmp_path / "cells.npz")
    arguments = (str(tmp_path / "cells.npz"), str(tmp_path / "cache"), "image_arrays")
    [[summary, corners, unread, count]] = python(PREPARE, *arguments, packages=installed)
    assert summary["counts"] == {"train": 24, "validation": 6, "test": 6}
    assert summary["classes"] == ["0", "1", "2"]
    assert count == 3
    assert summary["given_validation"]
    assert unread == []
    assert corners == images[:, 0, 0].tolist()
    [refused] = python(PREPARE, str(tmp_path), *arguments[1:], packages=installed)
    assert refused.startswith("data.source: source image_arrays of my-plugins 0.1.0: ")
    assert str(tmp_path) in refused


def test_the_commands_take_it(installed, tmp_path):
    arrays(tmp_path / "cells.npz")
    file = tmp_path / "x.yaml"
    file.write_text(
        f"name: x\ndata: {{source: image_arrays, path: {tmp_path}/cells.npz, image_size: 32}}\n"
        "model: {weights: none}\n"
    )
    sheet = str(tmp_path / "sheet.png")
    commands = [
        ["check", str(file)],
        ["data", str(file), "--sheet", sheet],
        ["check", str(file), "--set", "data.source=image_array"],
        ["schema"],
    ]
    check, data, unknown, schema = python(COMMANDS, json.dumps(commands), packages=installed)
    assert (check[0], data[0]) == (0, 0), check[2] + data[2]
    assert "3 classes, 36 images (train 24, validation 6, test 6)" in check[1]
    assert Path(sheet).is_file()
    assert unknown[0] == 2
    assert "typefaces, image_arrays; did you mean image_arrays?" in unknown[2]
    allowed = json.loads(schema[1])["properties"]["data"]["properties"]["source"]["enum"]
    assert allowed[0] == "auto"
    assert allowed[-1] == "image_arrays"


def test_nodes_are_asked_for_files_alone(broken, tmp_path):
    """What a path is to a source of a package, which may not be a file, only that knows."""
    program = (
        "import json, sys\n"
        "from gsfl_tune.cluster.doctor.inspection import data_paths\n"
        "from gsfl_tune.experiment import Experiment\n"
        "text = 'name: x\\ndata: {source: folders, path: %s}\\nmodel: {weights: none}\\n'\n"
        "paths = [data_paths(Experiment.parse(text % p, file='x')) for p in sys.argv[1:]]\n"
        "print(json.dumps(paths))\n"
    )
    paths = (str(tmp_path), "museum://hall/3", str(tmp_path / "nothing"))
    assert python(program, *paths, packages=broken) == [[str(tmp_path)], [], []]


@pytest.mark.slow
def test_whatever_goes_wrong_names_the_package(broken, tmp_path):
    names = [name for name in BROKEN if name != "folders"]
    told = python(PREPARE, "nowhere", str(tmp_path), *names, packages=broken)
    expected = {
        "gone": "cannot be loaded (ModuleNotFoundError: ",
        "wrong": "which is not a subclass of gsfl_tune.data.sources.Source",
        "fails": "failed (KeyError: 'a slip')",
        "refuses": ": data.path must name a museum",
        "bare": "has no list of samples (does its __init__ call super().__init__()?)",
        "disorder": "readers() gave 59 where position 0 was next",
        "digests": "known_digests() must give 16 bytes for each of the 60 samples, or None",
    }
    for name, said in zip(names, told, strict=True):
        if name in expected:
            assert said.startswith(f"data.source: source {name} of my-sources 2.0")
            assert expected[name] in said
            assert len(said.splitlines()) == 1
    said = dict(zip(names, told, strict=True))
    start = "data.source: source outside of my-sources 2.0: "
    assert said["outside"].splitlines() == [
        f"{start}labels outside the 2 classes: x (2)",
        f"{start}parts: found x ('dev'), allowed train, validation, test or None",
        f"{start}paths that several samples have: x",
        f"{start}known_groups: found 1, allowed one for each of 2 classes",
    ]
    # A reader that fails makes a broken image, and too many of them are too many.
    assert said["unread"].splitlines()[-1].strip() == "picture 7: KeyError: 'lost'"
    file = tmp_path / "x.yaml"
    file.write_text("name: x\ndata: {source: wrong}\nmodel: {weights: none}\n")
    [[code, _, err]] = python(COMMANDS, json.dumps([["check", str(file)]]), packages=broken)
    assert code == 2
    assert "x.yaml:2: data.source: source wrong of my-sources 2.0 is my_sources:Wrong" in err


def test_a_source_of_files(broken, tmp_path):
    [[summary, corners, _, _]] = python(PREPARE, "", str(tmp_path), "folders", packages=broken)
    assert summary["counts"] == {"train": 16, "validation": 4, "test": 4}
    assert [corner[0] for corner in corners] == [20, 21, 22, 23]
    assert summary["notices"] == ["24 pictures were made", "left out: 3 files: too dark 3"]
