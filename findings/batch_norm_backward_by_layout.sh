#!/usr/bin/env bash
# On the CPU the way back through a batch norm takes many times as long when its map has the channels
# last in memory and is averaged over its positions afterwards.
#
# Versions: torch 2.14.1 (CPU, Python 3.11, one thread, Intel Xeon).
#
# The gradient of a mean over positions is an expanded vector, which becomes a tensor with the
# channels first. native_batch_norm_backward is fast when the map and its gradient have one layout;
# with channels_last maps and such a gradient it takes a slow path, without a warning. Seen for
# 64 x 1280 x 7 x 7, the last map of an EfficientNet, in ms for the whole way back:
#   batch norm, ReLU6, mean over positions              fp32 167, bf16 99
#   the same, with a hook that gives the map's gradient fp32 29, bf16 19
#   the map's layout
# With adaptive_avg_pool2d it is the same. channels_last is what convolutions on a CPU are fast in, so
# whoever fine-tunes the last blocks of a network there pays for it: a quarter of a step was this.
#
# Takes some minutes and 6 GB in a temporary folder. Fails if the ratio is below 2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 numpy
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
last = torch.channels_last
pools = {
    "mean": lambda maps: maps.mean((2, 3)),
    "adaptive_avg_pool2d": lambda maps: nn.functional.adaptive_avg_pool2d(maps, 1).flatten(1),
}


def seconds(dtype, pool, in_layout):
    """The fastest way back of eight."""
    maps = torch.randn(64, 1280, 7, 7).to(dtype).contiguous(memory_format=last).requires_grad_()
    norm = nn.BatchNorm2d(1280).train()
    found = []
    for _ in range(8):
        active = nn.functional.relu6(norm(maps))
        if in_layout:
            active.register_hook(lambda gradient: gradient.contiguous(memory_format=last))
        total = pool(active).float().sum()
        begun = time.perf_counter()
        total.backward()
        found.append(time.perf_counter() - begun)
    return min(found)


slow = []
for dtype in (torch.float32, torch.bfloat16):
    for name, pool in pools.items():
        plain, hooked = (1e3 * seconds(dtype, pool, how) for how in (False, True))
        print(f"{dtype}, {name}: {plain:.0f} ms, with the map's layout {hooked:.0f} ms")
        slow.append(plain / hooked)
if min(slow) < 2:
    raise SystemExit(f"changed: ratios {[round(each, 1) for each in slow]}, expected more than 2")
print("as described")
PYTHON
