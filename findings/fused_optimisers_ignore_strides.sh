#!/usr/bin/env bash
# A fused optimiser whose state lies in memory otherwise than its weights applies momentum to the
# wrong weights, without a word.
#
# Versions: torch 2.14.1 (CPU, Python 3.11).
#
# The fused SGD and AdamW of the CPU go through weight, gradient and state in the order in which
# each lies in memory. Optimiser state that was saved as plain contiguous tensors (by another
# process layout, or by a file format without strides) and loaded beside channels-last weights has
# another order: load_state_dict keeps the strides of what it is given. The unfused optimisers look
# at strides and are right. A convolution 8 x 4 x 3 x 3 in channels-last, three steps, state taken
# out and put back as contiguous tensors, one more step; largest difference to the same without the
# detour, seen:
#              unfused   fused
#   SGD        0.0       0.024
#   AdamW      0.0       0.018
# Where state is made by the optimiser itself, both agree.
#
# Takes about two minutes and 6 GB in a temporary folder. Fails if any of this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from typing import Any

import torch

KINDS = {
    "SGD": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.01}),
}


def contiguous(state: Any) -> Any:
    """The same numbers in the plain order of memory."""
    if isinstance(state, dict):
        return {key: contiguous(value) for key, value in state.items()}
    if isinstance(state, list):
        return [contiguous(value) for value in state]
    return state.contiguous() if isinstance(state, torch.Tensor) else state


def trained(kind: str, *, fused: bool, detour: bool) -> torch.Tensor:
    """Weights after four steps; with the detour, the state is saved and loaded before the last."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    images = torch.randn(2, 4, 8, 8)
    optimiser, settings = KINDS[kind]
    steps = optimiser(layer.parameters(), fused=fused, foreach=False, **settings)
    for step in range(4):
        if detour and step == 3:
            steps.load_state_dict(contiguous(steps.state_dict()))
        steps.zero_grad()
        layer(images).square().mean().backward()
        steps.step()
    return layer.weight.detach().clone()


for kind in KINDS:
    found = {}
    for fused in (False, True):
        straight = trained(kind, fused=fused, detour=False)
        around = trained(kind, fused=fused, detour=True)
        found[fused] = float((straight - around).abs().max())
    print(kind, found)
    assert found[False] == 0.0, found
    assert found[True] > 1e-3, found
PYTHON
