"""Tiny random pipelines make images of images."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.synthesis.generator import Generator, SynthesisFailed, between
from gsfl_tune.synthesis.model_files import read_model
from gsfl_tune.synthesis.settings import Settings

from .conftest import SIDE, scene, write_large_pipeline

CPU = torch.device("cpu")
FEW = Settings(steps=4, strength=0.5)


def square(seed: int) -> np.ndarray:
    return np.array(scene(seed).resize((SIDE, SIDE)))


@pytest.fixture(scope="module")
def generator(pipeline) -> Generator:
    return Generator(read_model(pipeline), CPU)


def test_the_arc_keeps_the_length_between_vectors_of_one_length():
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    half = between(first, second, 0.5)
    torch.testing.assert_close(half, torch.full((1, 2), 2.0**0.5))
    torch.testing.assert_close(between(first, second, 0.0), first)
    torch.testing.assert_close(between(first, second, 1.0), second)
    third = between(first, second, 1 / 3)
    torch.testing.assert_close(third, torch.tensor([[3.0**0.5, 1.0]]))


@pytest.mark.parametrize("factor", [1.0, 1.5, -1.0])
def test_parallel_vectors_are_joined_by_a_line(factor):
    first = torch.randn(1, 4, 3, 3)
    found = between(first, factor * first, 0.25)
    torch.testing.assert_close(found, (0.75 + 0.25 * factor) * first)


def test_an_image_is_a_function_of_latents_prompt_and_seed(generator):
    latents = generator.latents(square(1))
    assert latents.shape == (1, 4, SIDE // 2, SIDE // 2)
    torch.testing.assert_close(latents, generator.latents(square(1)), rtol=0, atol=0)
    steps: list[int] = []
    made = generator.image(latents, "a photo of a yew", 5, FEW, steps.append)
    assert (made.shape, made.dtype, steps) == ((SIDE, SIDE, 3), np.uint8, [1, 2])

    def same(other, prompt="a photo of a yew", seed=5, settings=FEW):
        return np.array_equal(generator.image(other, prompt, seed, settings), made)

    torch.manual_seed(99)  # other random numbers of the process do not matter
    assert same(latents)
    assert not same(latents, seed=6)
    assert not same(latents, prompt="a photo of an ash")
    assert not same(generator.latents(square(2)))
    assert not same(latents, settings=Settings(steps=4, strength=0.5, guidance=1.0))


def test_less_strength_stays_nearer(generator):
    """As far as the denoising network is random: noise that is hardly added is hardly removed."""
    latents = generator.latents(square(3))
    plain = generator._pipe.vae.decode(latents / generator._pipe.vae.config.scaling_factor)
    start = ((plain.sample[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255).numpy(force=True)
    far = [
        np.abs(generator.image(latents, "x", 1, Settings(steps=20, strength=s)) - start).mean()
        for s in (0.05, 0.9)
    ]
    assert far[0] < far[1]


def test_the_latents_are_those_of_the_pipeline(generator):
    """Independent of ours: diffusers encodes the same image itself, by the mean of its encoder."""
    pipe, pixels = generator._pipe, square(4)
    image = pipe.image_processor.preprocess(torch.from_numpy(pixels / 255).permute(2, 0, 1)[None])
    theirs = pipe.vae.encode(image.float()).latent_dist.mean * pipe.vae.config.scaling_factor
    torch.testing.assert_close(generator.latents(pixels), theirs)


def test_loading_prints_nothing(pipeline, capfd):
    Generator(read_model(pipeline), CPU)
    assert capfd.readouterr() == ("", "")


def test_values_that_are_not_finite_are_a_failure(generator):
    latents = torch.full((1, 4, SIDE // 2, SIDE // 2), float("nan"))
    with pytest.raises(SynthesisFailed, match="not finite"):
        generator.image(latents, "x", 0, FEW)


def test_weights_that_diffusers_cannot_load_are_a_message(pipeline, tmp_path):
    folder = tmp_path / "sd"
    shutil.copytree(pipeline, folder)
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"--model: .* diffusers cannot load it"):
        Generator(read_model(folder), CPU)


def test_stable_diffusion_xl_is_taken_too(tmp_path):
    pytest.importorskip("diffusers")
    model = read_model(write_large_pipeline(tmp_path / "xl"))
    assert (model.class_name, model.size) == ("StableDiffusionXLImg2ImgPipeline", SIDE)
    generator = Generator(model, CPU)
    made = generator.image(generator.latents(square(1)), "a yew", 5, FEW)
    assert made.shape == (SIDE, SIDE, 3)
