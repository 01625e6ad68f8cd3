"""The program on a bundle's card, run as it stands, says what ``gsfl-tune predict`` says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from gsfl_tune.bundles.preprocessing import Preprocessing
from gsfl_tune.data.image_file import load_square
from gsfl_tune.export import Options, export_run, load_bundle
from gsfl_tune.export.readers import reader
from gsfl_tune.run import RunDirectory

pytest.importorskip("onnxruntime")
pytest.importorskip("torchao")

SLOW = pytest.mark.slow
# What Pillow rounds to bytes while it resizes, a file that resizes itself does not.
INSIDE, OUTSIDE = 1e-4, 0.02


def _pictures(folder: Path) -> list[Path]:
    """Wide, tall, lying on its side, and one whose colours are partly seen through."""
    generator = np.random.default_rng(2)

    def picture(width: int, height: int) -> Image.Image:
        small = generator.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)

    files = []
    for name, image, options in (
        ("wide", picture(140, 50), {"format": "JPEG"}),
        ("tall", picture(37, 111), {"format": "JPEG"}),
        ("lying", picture(120, 60), {"format": "JPEG", "exif": Image.Exif()}),
        ("pierced", picture(90, 61), {"format": "PNG"}),
    ):
        if "exif" in options:
            options["exif"][0x0112] = 6  # turned by a quarter
        if name == "pierced":
            image.putalpha(picture(90, 61).convert("L"))
        files.append(folder / name)
        image.save(files[-1], **options)
    return files


def _fitted(run: RunDirectory, target: Path, fit: str) -> RunDirectory:
    """The run of a winner that was trained on squares made in another way."""
    copy = RunDirectory(shutil.copytree(run.path, target))
    file = copy.best / "config.json"
    config: dict[str, Any] = json.loads(file.read_text())
    config["preprocessing"]["fit"] = config["experiment"]["data"]["fit"] = fit
    file.write_text(json.dumps(config))
    return copy


def _program(folder: Path) -> str:
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    (program,) = [block for block in blocks if "from gsfl_tune" not in block]
    return str(program)


def _ask(program: str, folder: Path) -> tuple[str, float]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['gsfl_tune'] = None\n{program}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    name, probability = done.stdout.rsplit(maxsplit=1)
    return name, float(probability)


@pytest.mark.parametrize(
    ("format", "precision", "fit", "preprocess"),
    [
        pytest.param("onnx", "fp16", "squash", False, marks=SLOW),
        pytest.param("onnx", "int8", "pad", True, marks=SLOW),
        pytest.param("openvino", "fp16", "pad", False, marks=SLOW),
        pytest.param("onnx", "int8", "crop", False, marks=SLOW),
        pytest.param("torch-export", "fp16", "pad", True, marks=SLOW),
        pytest.param("torch-export", "int8", "squash", False, marks=SLOW),
        pytest.param("torch-export", "int8", "crop", True, marks=SLOW),
    ],
)
def test_the_card_reads_the_file(
    trained_run: RunDirectory,
    cache_dir: Path,
    tmp_path: Path,
    format: str,
    precision: str,
    fit: str,
    preprocess: bool,
) -> None:
    run = _fitted(trained_run, tmp_path / "run", fit)
    options = Options(
        format=format, precision=precision, preprocess=preprocess, threads=1, seconds=0.0,
        calibration=32, max_loss=100.0,
    )  # fmt: skip
    out = export_run(run.path, tmp_path / "out", options=options, cache_dir=cache_dir)
    program, files = _program(out), _pictures(tmp_path)
    bundle = load_bundle(out)
    tolerance = INSIDE if preprocess else OUTSIDE
    answers = []
    for file in files:
        shutil.copyfile(file, out / "image.jpg")
        name, probability = _ask(program, out)
        # One at a time, as the program does: in int8 a batch of another size is another rounding.
        (expected,) = bundle.predict([file], top=len(bundle.classes))
        answers.append(dict(zip(expected.classes, expected.probabilities, strict=True)))
        assert probability == pytest.approx(answers[-1][name], abs=tolerance), file.name
        assert probability == pytest.approx(expected.probabilities[0], abs=tolerance), file.name
    # In another way the same pictures are other squares: the comparison says something.
    other_fit = "crop" if fit == "pad" else "pad"
    other = load_bundle(_fitted(trained_run, tmp_path / "other", other_fit).best)
    differences = [
        abs(answer[name] - probability)
        for answer, said in zip(answers, other.predict(files, top=len(other.classes)), strict=True)
        for name, probability in zip(said.classes, said.probabilities, strict=True)
    ]
    assert max(differences) > tolerance
    command = [sys.executable, "-m", "gsfl_tune", "predict", out, files[-1], "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True)
    (said,) = json.loads(printed.stdout)
    assert said["probabilities"][0] == pytest.approx(max(answers[-1].values()), abs=INSIDE)


def _square(path: Path, how: Preprocessing, ranged: bool) -> np.ndarray:
    """What the program makes of a file, before it asks the model."""
    lines = reader("onnx", preprocess=True, fit=how.fit, ranged=ranged)
    lines = lines[lines.index("side = ") : lines.index("images = ")]
    names: dict[str, Any] = {
        "np": np, "Image": Image, "ImageOps": ImageOps, "preprocessing": how.to_json()
    }  # fmt: skip
    exec(lines.replace("image.jpg", str(path)), names)
    return np.asarray(names["square"])


@pytest.mark.parametrize(
    ("ranges", "top", "kind"),
    [
        ({}, 65535, np.uint16),
        ({"value_range": (0.0, 4095.0)}, 4095, np.uint16),
        ({"value_range": (0.0, 4095.0)}, 5000, np.uint16),
        ({"float_range": (0.0, 65535.0)}, 65535, np.uint16),
        ({"float_range": (0.0, 3.5)}, 3.5, np.float32),
        ({"value_range": (0.5, 2.0)}, 3.5, np.float32),
        ({"float_range": (0.0, 3.5)}, 255, np.uint8),
    ],
)
def test_deep_grey_images_are_read_as_by_the_bundle(
    tmp_path: Path, ranges: dict[str, Any], top: float, kind: type
) -> None:
    values = np.random.default_rng(0).random((40, 40)) * top
    file = tmp_path / ("image.png" if kind is not np.float32 else "image.tiff")
    Image.fromarray(values.astype(kind)).save(file)
    how = Preprocessing(32, 40, "crop", [0.5] * 3, [0.3] * 3, **ranges)
    expected = load_square(file, how.side, how.fit, reading=how.reading)[0]
    assert expected.std() > 20
    np.testing.assert_array_equal(_square(file, how, bool(ranges)), expected)


def test_the_card_knows_the_range_of_the_run(
    trained_run: RunDirectory, cache_dir: Path, tmp_path: Path
) -> None:
    run = RunDirectory(shutil.copytree(trained_run.path, tmp_path / "run"))
    config: dict[str, Any] = json.loads((run.best / "config.json").read_text())
    config["preprocessing"]["value_range"] = [0, 4095]
    (run.best / "config.json").write_text(json.dumps(config))
    options = Options(format="onnx", preprocess=True, threads=1, seconds=0.0)
    out = export_run(run.path, tmp_path / "out", options=options, cache_dir=cache_dir)
    values = np.random.default_rng(0).integers(0, 4096, (8, 8)).astype(np.uint16)
    Image.fromarray(values).resize((60, 60)).save(out / "image.jpg", format="PNG")
    name, probability = _ask(_program(out), out)
    (expected,) = load_bundle(out).predict([out / "image.jpg"], top=1)
    assert name == expected.classes[0]
    assert probability == pytest.approx(expected.probabilities[0], abs=INSIDE)
