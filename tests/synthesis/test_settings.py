from __future__ import annotations

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.synthesis import Settings


def test_the_defaults_can_be_used():
    Settings().check()


def test_all_problems_are_told_at_once():
    settings = Settings(
        per_class=0, strength=1.5, mix=-0.1, steps=0, guidance=float("nan"), prompt="a bird",
        size=3, confidence=2.0, attempts=0, seed=-1,
    )  # fmt: skip
    with pytest.raises(UserError) as raised:
        settings.check()
    lines = str(raised.value).splitlines()
    options = ["per-class", "steps", "attempts", "strength", "mix", "guidance", "prompt", "size"]
    assert [line.split(":")[0] for line in lines] == [
        f"--{option}" for option in [*options, "confidence", "seed"]
    ]
    assert all("found" in line and "allowed" in line for line in lines)


def test_a_strength_without_a_step_is_refused():
    with pytest.raises(UserError, match=r"0\.1 of 9 steps, which is no step; .* least 0\.111"):
        Settings(strength=0.1, steps=9).check()
    Settings(strength=0.1, steps=10).check()


def test_the_prompt_names_the_class():
    assert Settings(prompt="{class}, a {class}").prompt_of("red_kite") == "red kite, a red kite"
