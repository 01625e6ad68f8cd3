"""Degraded images that a super-resolution network makes large again."""

from __future__ import annotations

import io
import os
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from gsfl_tune.cli import main
from gsfl_tune.data.transforms import Degrade
from gsfl_tune.data.transforms.restorer import Restorer, restorer_problem
from gsfl_tune.experiment import Experiment, ExperimentError, UserError
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.testing import check_transform

spandrel = pytest.importorskip("spandrel")


def network(scale=2, channels=3, seed=0):
    """A tiny Real-ESRGAN Compact with random weights."""
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(seed)
    return Compact(num_in_ch=channels, num_out_ch=channels, num_feat=4, num_conv=1, upscale=scale)


def saved(path: Path, **settings) -> str:
    save_file(network(**settings).state_dict(), path)
    return str(path)


def plain(image, scale, quality, upscale):
    """The same by hand: with weights of this network, whose layers are applied one by one."""
    small = Image.fromarray(image).resize(
        [max(1, round(scale * side)) for side in (image.shape[1], image.shape[0])],
        Image.Resampling.LANCZOS,
    )
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality)
    seen = np.asarray(Image.open(io.BytesIO(file.getvalue()))).astype(np.float64) / 255
    x = torch.from_numpy(seen).permute(2, 0, 1)[None]
    base = x.repeat_interleave(upscale, 2).repeat_interleave(upscale, 3)
    for layer in network(scale=upscale).double().body:
        x = layer(x)
    large = torch.zeros_like(base)
    for row in range(upscale):
        for column in range(upscale):
            own = x[:, row * upscale + column :: upscale**2]
            large[:, :, row::upscale, column::upscale] = own
    pixels = ((large + base).clamp(0, 1) * 255).round().byte()[0].permute(1, 2, 0).numpy()
    whole = Image.fromarray(pixels).resize(image.shape[1::-1], Image.Resampling.LANCZOS)
    return np.asarray(whole)


@torch.no_grad()
@pytest.mark.parametrize("upscale", [2, 4])
def test_it_is_what_the_network_makes_of_the_small_image(tmp_path, upscale):
    path = saved(tmp_path / "net.safetensors", scale=upscale)
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    images = coarse.repeat(4, 1).repeat(4, 2)
    drawn = torch.tensor([[0.1, 0.9, 0.2], [0.6, 0.5, 0.5], [0.3, 0.0, 1.0]])
    changed = Degrade(0.5, Restorer(path)).apply(torch.from_numpy(images).float(), drawn)
    assert torch.equal(changed[1], torch.from_numpy(images[1]).float())  # not drawn
    for place in (0, 2):
        quality = round(30 + 65 * float(drawn[place, 2]))
        wanted = plain(images[place], 0.25 ** float(drawn[place, 1]), quality, upscale)
        # Of float32 and float64, a value may round to another level.
        assert np.abs(changed[place].numpy() - wanted).max() <= 2
        lanczos = Degrade(0.5).apply(torch.from_numpy(images).float(), drawn)[place]
        assert not torch.equal(changed[place], lanczos)


def test_loading_draws_no_random_numbers(tmp_path):
    path = saved(tmp_path / "net.safetensors")
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    Restorer(path)
    assert torch.equal(torch.rand(3), wanted)


def test_it_keeps_the_contract(tmp_path):
    path = saved(tmp_path / "net.safetensors")
    check_transform(lambda: Degrade(0.6, Restorer(path)))


def test_a_state_dict_of_torch_is_read_too_and_its_code_never_run(tmp_path):
    path = tmp_path / "net.pth"
    torch.save({"params_ema": network().state_dict()}, path)
    same = saved(tmp_path / "net.safetensors")
    image = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    one, other = (Restorer(str(each))(image, torch.device("cpu")) for each in (path, same))
    assert one.shape == (18, 14, 3)
    assert np.array_equal(one, other)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path.write_bytes(pickle.dumps({"body.0.weight": Evil()}))
    with pytest.raises(UserError, match=r"data\.augment\.restorer: .*cannot be read as weights"):
        Restorer(str(path))
    assert not (tmp_path / "ran").exists()


def test_other_files_are_refused(tmp_path):
    for name, settings, words in (
        ("one", {"scale": 1}, "a network for Restoration"),
        ("grey", {"channels": 1}, "enlarges 1 channels to 1, 2 times"),
    ):
        path = saved(tmp_path / f"{name}.safetensors", **settings)
        with pytest.raises(UserError, match=words):
            Restorer(path)
    unknown = tmp_path / "unknown.safetensors"
    save_file({"weight": torch.zeros(3)}, unknown)
    with pytest.raises(UserError, match="is no network that spandrel"):
        Restorer(str(unknown))
    unknown.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read as weights"):
        Restorer(str(unknown))
    with pytest.raises(UserError, match=r"cannot be read as weights .FileNotFoundError"):
        Restorer(str(tmp_path / "none.safetensors"))
    with pytest.raises(UserError, match=r"allowed a file of weights \(\.safetensors"):
        Restorer("net.onnx")


def test_the_extra_is_named_where_it_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    assert restorer_problem(None) is None
    words = r"pip install 'gsfl-tune\[super-resolution\]'"
    with pytest.raises(UserError, match=words):
        Restorer("net.safetensors")
    path = saved(tmp_path / "net.safetensors")
    file = tmp_path / "t.yaml"
    file.write_text(TEXT.replace("FILE", path))
    assert main(["check", str(file)]) == 2
    assert re.search(rf"t\.yaml:4: data\.augment\.restorer: .*{words}", capsys.readouterr().err)


def test_views_are_those_of_the_content_of_its_file(tmp_path):
    path = saved(tmp_path / "a.safetensors")
    same = saved(tmp_path / "b.safetensors")
    other = saved(tmp_path / "c.safetensors", seed=1)

    def recipe(file, degrade=0.5):
        return AugmentConfig(degrade=degrade, restorer=file).recipe()

    assert recipe(path) == recipe(same)
    assert recipe(path) != recipe(other)
    assert recipe(path, degrade=0.0) == recipe(None, degrade=0.0)
    assert "restorer" not in recipe(None)
    before = recipe(path)
    save_file(network(seed=2).state_dict(), path)
    os.utime(path, ns=(1, 1))
    assert recipe(path) != before


TEXT = """name: t
data:
  source: typefaces
  augment: {degrade: 0.5, restorer: FILE}
training: {finetune: {epochs: 1}}
"""


def test_a_file_that_is_not_there_is_said_by_check(tmp_path):
    path = saved(tmp_path / "net.safetensors")
    Experiment.parse(TEXT.replace("FILE", path))
    with pytest.raises(ExperimentError, match=r"4: data\.augment\.restorer: found '.*does not ex"):
        Experiment.parse(TEXT.replace("FILE", path + ".safetensors"), file="t.yaml")
    found = Experiment.parse(TEXT.replace("FILE", f"{{choice: [null, {path}]}}"))
    assert found.values("data.augment.restorer") == [None, path]
    text = TEXT.replace("FILE", f"{{choice: [null, {path}]}}").replace("0.5", "0")
    (idle,) = Experiment.parse(text).warnings
    assert idle.path == "data.augment.restorer"
