"""Tiny random pipelines of Stable Diffusion, and images of three classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.experiment.data_config import DataConfig

CLASSES = ("ash", "oak tree", "yew")
SIDE = 32


def tokenizer():
    """Knows single letters and `photo`; the vocabulary is made here, without a network."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{each}</w>" for each in letters), "ph", "<|startoftext|>"]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[("p", "h")], model_max_length=16)


def text_config(**values):
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=60, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, bos_token_id=53, eos_token_id=54,
        pad_token_id=54, **values,
    )  # fmt: skip


def networks(**values):
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=2, **values,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
    return {"unet": unet, "vae": vae, "scheduler": scheduler, "tokenizer": tokenizer()}


def write_pipeline(folder: Path) -> Path:
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    parts = networks(cross_attention_dim=16)
    StableDiffusionPipeline(
        **parts, text_encoder=CLIPTextModel(text_config()), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def write_large_pipeline(folder: Path) -> Path:
    """Stable Diffusion XL, with two text encoders."""
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    parts = networks(
        cross_attention_dim=32, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 16,
    )  # fmt: skip
    StableDiffusionXLPipeline(
        **parts, text_encoder=CLIPTextModel(text_config()), tokenizer_2=tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(projection_dim=16)),
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory) -> Path:
    pytest.importorskip("diffusers")
    torch.set_num_threads(1)
    return write_pipeline(tmp_path_factory.mktemp("pipeline") / "sd")


def scene(seed: int) -> Image.Image:
    """A picture with large shapes."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((40, 36), Image.Resampling.BICUBIC)


def write_photos(folder: Path, count: int = 8) -> Path:
    """``folder/CLASS/NUMBER.png``."""
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            scene(100 * label + number).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    return write_photos(tmp_path / "photos")


def config(photos: Path, **values) -> DataConfig:
    return DataConfig(source="folder", path=str(photos), image_size=16, **values)
