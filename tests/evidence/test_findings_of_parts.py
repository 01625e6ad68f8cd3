"""Findings about the class in the swap test: what d gives, and who judges."""

from __future__ import annotations

from typing import Any

from .test_findings import GOOD, codes, world


def swap(**changes: Any) -> dict[str, Any]:
    known = {"class_follows_discriminative": 0.6, "chance_class": 0.3, "judge_accuracy": 0.8}
    return {"swap": GOOD["swap"] | known | changes}


def test_a_class_that_does_not_follow_the_discriminative_part():
    assert codes(world(), swap()) == []
    assert codes(world(), swap(class_follows_discriminative=0.31)) == ["swap_class_at_chance"]
    # Groups of one class have no pairs inside.
    none = swap(class_follows_discriminative=None, chance_class=None)
    assert codes(world(), none) == []


def test_a_judge_that_is_often_wrong():
    assert codes(world(), swap(judge_accuracy=0.45)) == ["weak_judge"]
    assert codes(world(), swap(judge_accuracy=0.55)) == []


def test_a_collapsed_shared_part_does_not_hide_what_d_gives():
    evidence = swap(class_follows_discriminative=0.31) | {"shared": {"spread": 0, "by_seed": [0]}}
    assert codes(world(), evidence) == ["shared_collapsed", "swap_class_at_chance"]
