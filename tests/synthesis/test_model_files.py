"""What is known of a pipeline before it is loaded, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.synthesis.model_files import read_model

NAME = "diffusion_pytorch_model"


def write(folder: Path, *, weights: str = f"{NAME}.safetensors", **index) -> Path:
    """The files of a pipeline, without what is in the weights."""
    parts = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "safety_checker": [None, None],
    }
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps(parts | index))
    configs = {
        "unet": {"sample_size": 64, "block_out_channels": [1, 2, 3, 4], "in_channels": 4},
        "vae": {"block_out_channels": [1, 2, 3, 4], "latent_channels": 4},
        "text_encoder": {},
    }
    for name, config in configs.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
        (folder / name / weights).write_bytes(b"1234")
    return folder


def test_the_files_tell_sizes(tmp_path):
    found = read_model(write(tmp_path / "sd"))
    assert (found.size, found.multiple, found.variant) == (512, 64, None)
    assert found.class_name == "StableDiffusionImg2ImgPipeline"
    assert (found.side(None), found.side(256)) == (512, 256)
    with pytest.raises(UserError, match="--size: found 250, allowed a multiple of 64"):
        found.side(250)


def test_a_pipeline_without_a_size_needs_one(tmp_path):
    folder = write(tmp_path / "sd")
    (folder / "unet/config.json").write_text('{"block_out_channels": [1, 2]}')
    with pytest.raises(UserError, match=r"--size: .* does not say its own"):
        read_model(folder).side(None)


@pytest.mark.parametrize(
    ("weights", "variant"),
    [(f"{NAME}.fp16.safetensors", "fp16"), (f"{NAME}-00001-of-00002.safetensors", None),
     (f"{NAME}.fp16-00001-of-00002.safetensors", "fp16")],
)  # fmt: skip
def test_names_of_weights_tell_the_variant(tmp_path, weights, variant):
    assert read_model(write(tmp_path / "sd", weights=weights)).variant == variant


def test_the_digest_is_of_the_files_and_not_of_their_place(tmp_path):
    first, second = (read_model(write(tmp_path / name)) for name in "ab")
    assert first.digest == second.digest
    (tmp_path / "b/vae/config.json").write_text("{}")
    assert read_model(tmp_path / "b").digest != first.digest


def test_pickled_weights_are_refused(tmp_path):
    folder = write(tmp_path / "sd")
    for name in ("unet", "text_encoder"):
        (folder / name / f"{NAME}.safetensors").rename(folder / name / "weights.bin")
    with pytest.raises(UserError) as raised:
        read_model(folder)
    lines = str(raised.value).splitlines()
    assert len(lines) == 2
    assert all("weights.bin: found pickled weights, allowed .safetensors" in each for each in lines)


def test_weights_that_are_not_there_are_named(tmp_path):
    folder = write(tmp_path / "sd")
    (folder / "vae" / f"{NAME}.safetensors").unlink()
    with pytest.raises(UserError, match="vae/: found no weights"):
        read_model(folder)


@pytest.mark.parametrize(
    ("index", "found"),
    [
        ({"_class_name": "FluxPipeline"}, "a pipeline of the class FluxPipeline, allowed Stable"),
        ({"_class_name": ["mine", "MyPipeline"]}, "allowed StableDiffusionPipeline"),
        ({"unet": ["mine", "MyNetwork"]}, "unet: found a part of 'mine'"),
        ({"text_encoder": ["os", "system"]}, "code of a pipeline is never run"),
    ],
)
def test_code_of_its_own_and_other_kinds_are_refused(tmp_path, index, found):
    with pytest.raises(UserError, match=f"--model: .*{found}"):
        read_model(write(tmp_path / "sd", **index))


@pytest.mark.parametrize(
    ("part", "config", "found"),
    [
        ("unet", '{"in_channels": 9}', "unet: in_channels: found 9, allowed 4"),
        ("vae", '{"latent_channels": 16}', "vae: latent_channels: found 16, allowed 4"),
        ("vae", "[]", "found list, allowed a JSON object"),
        ("vae", "{", "cannot be read .* allowed JSON"),
    ],
)
def test_networks_that_do_not_fit_are_refused(tmp_path, part, config, found):
    folder = write(tmp_path / "sd")
    (folder / part / "config.json").write_text(config)
    with pytest.raises(UserError, match=found):
        read_model(folder)


def test_what_is_no_pipeline_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for name, found in (
        ("missing", "no such directory"),
        ("file", "a file"),
        ("", "no model_index.json"),
        ("CompVis/stable-diffusion-v1-4", "no such directory"),
    ):
        with pytest.raises(UserError, match=f"found {found}, allowed .* nothing is downloaded"):
            read_model(tmp_path / name)


def test_other_weights_of_the_same_size_are_other_weights(tmp_path):
    folder = write(tmp_path / "sd")
    file = folder / "unet" / f"{NAME}.safetensors"
    random = np.random.default_rng(0)
    # Small enough to be read as a whole, and so large that pieces are read.
    for size in (1000, 300_000_000):
        with file.open("wb") as stream:
            stream.write(random.bytes(1000))
            stream.truncate(size)
        before = read_model(folder).content
        assert read_model(folder).content == before
        for start, count in ((size // 2, 1 + size // 100), (0, 1), (size - 1, 1)):
            with file.open("r+b") as stream:
                stream.seek(start)
                stream.write(b"\1" * count)
            now = read_model(folder).content
            assert now != before
            before = now
