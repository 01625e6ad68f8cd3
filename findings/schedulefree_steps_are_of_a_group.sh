#!/usr/bin/env bash
# A parameter that gets its first gradient late takes a first step of schedule-free AdamW that is
# many times too long.
#
# Versions: schedulefree 1.4.1, torch 2.14.1 (CPU, Python 3.11).
#
# AdamWScheduleFree counts steps for a group of parameters; torch.optim.AdamW counts them for each
# parameter. The second moment of a parameter that joins later begins at zero, and is corrected as
# if it were as old as its group. Two parameters of one group, gradient 1, lr 1e-3, no decay; the
# second one has its first gradient in a later step. Length of its first step, seen:
#   steps before   schedulefree   torch.optim.AdamW
#   0              0.0010         0.0010
#   10             0.0033         0.0010
#   100            0.0098         0.0010
#   1000           0.0252         0.0010
# So gradual unfreezing, or any layer without a gradient in early steps, does not go with it, unless
# what joins later has a group of its own.
#
# Takes about three minutes and 6 GB in a temporary folder. Fails if any of this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 schedulefree==1.4.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from schedulefree import AdamWScheduleFree


def first_step(kind: type, late: int) -> float:
    """Length of the first step of a parameter that has no gradient in `late` steps."""
    early, joins = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = kind([early, joins], lr=1e-3, weight_decay=0)
    if kind is AdamWScheduleFree:
        optimizer.train()
    for step in range(late + 1):
        early.grad = torch.ones(1)
        joins.grad = torch.ones(1) if step == late else None
        optimizer.step()
    # Both began at 0; of schedule-free the sequence z takes the steps.
    return optimizer.state[joins].get("z", joins).detach().abs().item()


for late, expected in ((0, 0.0010), (10, 0.0033), (100, 0.0098), (1000, 0.0252)):
    found = first_step(AdamWScheduleFree, late), first_step(torch.optim.AdamW, late)
    print(late, *(f"{each:.4f}" for each in found))
    assert abs(found[0] - expected) < 2e-4, found
    assert abs(found[1] - 0.0010) < 1e-5, found
PYTHON
