"""A fast forward pass of frozen modules: norms and activations are folded into convolutions.

The method knows nothing about model families. One run on random input shows which norms and
activations are the only users of a convolution's output; they are folded into it. On the CPU such a
convolution is one oneDNN call with prepacked weights. A last run compares the result with the
original module; a copy that deviates is not used.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from gsfl_tune.models._fused import FusedConv, Link, Trace
from gsfl_tune.models.frozen_forward import TOLERANCE, Precision
from gsfl_tune.models.grouped_convs import restore_grouped_convs

# Bytes of the largest activation of one part of a batch. The C library returns memory blocks of
# more than 32 MB to the system at once, so every layer would wait for fresh pages.
_ACTIVATION_BYTES = 28 * 2**20
# Each part has a fixed cost per layer: smaller parts do not pay for a thread.
_SMALLEST_PART = 4

_log = logging.getLogger(__name__)


class FusedForward(nn.Module):
    """Runs a fast copy of a frozen module; made by `frozen_forward`.

    Gradients do not flow through it. On the CPU it splits a batch into parts, one for each of
    torch's threads at a time. So threads do not wait for each other after every layer, and the
    memory of one layer serves the next.

    Attributes:
        fused: Number of convolutions that include a norm or an activation, or became oneDNN
            calls; 0 if the copy runs like the original module.
    """

    def __init__(self, module: nn.Module, fused: int, image_bytes: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.fused = fused
        self._image_bytes = image_bytes
        self._dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """Returns the output of the original module for a batch, float32.

        Args:
            images: (B, ...), of any size that the module accepts.
        """
        if images.device.type != "cpu":
            return self._run(images)
        parts, workers = self._parts(images)
        if workers == 1:
            outputs = [self._run(part) for part in parts]
            return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        threads = torch.get_num_threads()
        inference = torch.is_inference_mode_enabled()

        def work(part: Tensor) -> Tensor:
            # The mode and the number of threads are settings of each thread.
            torch.set_num_threads(max(1, threads // workers))
            with torch.inference_mode(inference):
                return self._run(part)

        try:
            with ThreadPoolExecutor(workers, thread_name_prefix="frozen") as pool:
                return torch.cat(list(pool.map(work, parts)))
        finally:
            # New threads inherit the number that was set last.
            torch.set_num_threads(threads)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever `mode` says."""
        return super().train(False)

    @torch.no_grad()
    def _run(self, images: Tensor) -> Tensor:
        images = images.to(self._dtype)
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        if images.device.type != "cpu":
            return cast(Tensor, self.module(images)).float()
        # Threads of the pool have no autocast of the caller, so his own thread must not have it.
        with torch.autocast("cpu", enabled=False):
            return cast(Tensor, self.module(images)).float()

    def _parts(self, images: Tensor) -> tuple[Sequence[Tensor], int]:
        """Splits a batch into similar parts; returns them and the number of threads."""
        count = max(1, len(images))
        workers = max(1, min(torch.get_num_threads(), count // _SMALLEST_PART))
        fitting = max(1, _ACTIVATION_BYTES // max(1, self._image_bytes))
        rounds = math.ceil(count / (fitting * workers))
        return images.tensor_split(min(count, rounds * workers)), workers


def frozen_forward(
    module: nn.Module, input_shape: Sequence[int] = (3, 64, 64), *, precision: Precision = "fp32"
) -> FusedForward:
    """Makes a fast copy of a frozen module: the same output up to rounding, about 5e-6 of its size.

    The original module is not changed, and its later changes do not reach the copy. A module that
    cannot be made faster, or deviates by more than `TOLERANCE`, runs unchanged.

    Args:
        module: For instance a `Backbone`; one batch (B, ...) in, one tensor (B, ...) out.
        input_shape: Shape of one input, without B. Other sizes work too, but this one is checked.
        precision: ``bf16`` computes in bfloat16: about twice as fast again on a CPU with AMX, with
            deviations of a few percent.

    Returns:
        The copy, in evaluation mode, on the device of the module.
    """
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    plain = copy.deepcopy(module).to("cpu", torch.float32).eval().requires_grad_(False)
    # Theirs are gradients that are slow in bf16; here are none.
    restore_grouped_convs(plain)
    example = torch.randn((2, *input_shape), generator=torch.Generator().manual_seed(0))
    if example.ndim == 4:
        example = example.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        frozen = _fastest(plain, example, precision)
    if not frozen.fused:
        _log.info("the frozen %s runs as it is", type(module).__name__)
    return frozen.to(device).eval()


def has_bf16_units() -> bool:
    """Returns whether this CPU multiplies bf16 numbers in hardware (AMX or AVX512-BF16)."""
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(supported() for name in names if (supported := getattr(torch.cpu, name, None)))


def gpu_has_bf16(device: torch.device) -> bool:
    """Returns whether a device is a GPU that computes in bf16 by itself.

    torch says that older ones (T4, V100) support it too: they emulate it, slower than float32.
    """
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def _fastest(plain: nn.Module, example: Tensor, precision: Precision) -> FusedForward:
    """Returns the fastest copy that agrees with a module on the CPU."""
    try:
        expected, trace = _traced(plain, example)
    except Exception:  # models raise any error on unexpected input
        return FusedForward(plain, 0, 0, torch.float32)
    image_bytes = trace.largest // len(example)
    fast, fused = plain, 0
    for onednn in (True, False) if torch.backends.mkldnn.is_available() else (False,):
        candidate, count = _fused(plain, trace.links(), onednn)
        if _agrees(candidate, example, expected, "fp32"):
            fast, fused = candidate, count
            break
    if precision == "bf16":
        lower = copy.deepcopy(fast).to(torch.bfloat16)
        if _agrees(lower, example, expected, precision):
            return FusedForward(lower, fused, image_bytes // 2, torch.bfloat16)
    return FusedForward(fast, fused, image_bytes, torch.float32)


def _fused(model: nn.Module, links: Sequence[Link], onednn: bool) -> tuple[nn.Module, int]:
    """Returns a copy with convolutions replaced, and their number."""
    memo: dict[int, Any] = {}
    model = copy.deepcopy(model, memo)
    replacements: dict[nn.Module, nn.Module] = {}
    for conv, norm, activation in links:
        if not onednn and norm is None:
            continue
        if any(each is not None and each._forward_pre_hooks for each in (conv, norm, activation)):
            continue  # what enters it is changed, or read by something else
        fused = FusedConv(conv, norm, activation or nn.Identity(), onednn)
        replacements[memo[id(conv)]] = fused
        if norm is not None:
            own = nn.Identity() if activation else getattr(norm, "act", nn.Identity())
            replacements[memo[id(norm)]] = own
        if activation is not None:
            replacements[memo[id(activation)]] = nn.Identity()
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child in replacements:
                setattr(parent, name, replacements[child])
    return model, sum(isinstance(module, FusedConv) for module in model.modules())


def _traced(model: nn.Module, example: Tensor) -> tuple[Tensor, Trace]:
    trace = Trace(model)
    with trace.watching():
        expected = model(example)
    return expected, trace


def _agrees(model: nn.Module, example: Tensor, expected: Tensor, precision: Precision) -> bool:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        found = model(example.to(dtype)).float()
    except Exception:  # models raise any error on unexpected layers
        return False
    if found.shape != expected.shape:
        return False
    size = expected.flatten(1).norm(dim=1)
    distance = (found - expected).flatten(1).norm(dim=1)
    # In this form a result that is not finite does not agree.
    return bool((distance <= TOLERANCE[precision] * size).all())
