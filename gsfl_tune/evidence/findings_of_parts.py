"""Findings about the winner's own parts: shared part, decoder, groups."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from gsfl_tune.run.results import Finding

# Share of the mean square of s; with less variance, s is one point for all images.
COLLAPSED = 0.01
# Mean correlation of two maps; above it they show the same regions.
ALIKE = 0.95
_NEARLY_ALL = 0.8
# Share of real images; a judge that is wrong more often says little about decoded ones.
_WEAK = 0.5
_ONE_SIDED = 1.645
_FEWEST_ERRORS = 20


def of_parts(
    evidence: Mapping[str, Any], images: int, groups: Mapping[str, int] | None = None
) -> Iterator[Finding]:
    """Finds problems of a GSFL winner; yields nothing for a plain one.

    Args:
        evidence: Content of ``evidence.json``.
        images: Number of test images.
        groups: Group of every class.
    """
    yield from _of_shared_part(evidence)
    yield from _of_maps(evidence)
    yield from _of_groups(evidence, images)
    yield from _of_sizes(groups or {})


def _of_shared_part(evidence: Mapping[str, Any]) -> Iterator[Finding]:
    spread = _part(evidence, "shared")
    collapsed = spread is not None and spread["spread"] < COLLAPSED
    if spread is not None and collapsed:
        yield Finding(
            "shared_collapsed",
            "severe",
            {"spread": spread["spread"], "limit": COLLAPSED},
            "The shared part has collapsed: this is a plain classifier. s is nearly the same for "
            f"all test images (its variance is {100 * spread['spread']:.2g} % of its mean square).",
        )
    probes = _part(evidence, "probes")
    rows = {row["part"]: row for row in probes["parts"]} if probes else {}
    if probes and "s" in rows and not collapsed:
        images, chance, own = probes["images"], probes["chance"], rows["s"]["groups"]["mean"]
        needed = chance + _ONE_SIDED * math.sqrt(chance * (1 - chance) / images)
        if own <= needed:
            yield Finding(
                "shared_at_chance",
                "severe",
                {"accuracy": own, "chance": chance, "needed": needed, "images": images},
                f"The shared part is not seen to contain the groups: a linear classifier of s "
                f"predicts the group of {100 * own:.1f} % of the test images, a guess of the "
                f"largest group is right for {100 * chance:.1f} %, and {_by_chance(needed)}.",
            )
        else:
            yield from _as_random(rows["s"])
    swap = _part(evidence, "swap")
    if swap:
        # Pairs share images, so at most as many count as there are images.
        count = min(swap["pairs"] / 2, probes["images"] if probes else 200)
        yield from _of_swap(swap, count, collapsed)


def _of_swap(swap: Mapping[str, Any], count: float, collapsed: bool) -> Iterator[Finding]:
    judge = swap.get("judge_accuracy")
    if judge is not None and judge < _WEAK:
        yield Finding(
            "weak_judge",
            "note",
            {"accuracy": judge, "limit": _WEAK},
            f"The judge of the swap test is right on {100 * judge:.1f} % of real images: low "
            "numbers of that test may come from the judge, not from the parts.",
        )
    followed, chance = swap.get("class_follows_discriminative"), swap.get("chance_class")
    if followed is not None and chance is not None:
        needed = chance + _ONE_SIDED * math.sqrt(chance * (1 - chance) / count)
        if followed <= needed:
            yield Finding(
                "swap_class_at_chance",
                "warning",
                {"class_follows_discriminative": followed, "chance": chance, "needed": needed},
                "The decoder is not seen to use the discriminative part: with s of another image "
                f"of the group the class follows d in {100 * followed:.1f} % of the pairs, a guess "
                f"among the group's classes in {100 * chance:.1f} %, and {_by_chance(needed)}.",
            )
    followed, chance = swap.get("group_follows_shared"), swap.get("chance_group")
    if followed is not None and chance is not None and not collapsed:
        needed = chance + _ONE_SIDED * math.sqrt(chance * (1 - chance) / count)
        if followed <= needed:
            yield Finding(
                "swap_at_chance",
                "warning",
                {"group_follows_shared": followed, "chance": chance, "needed": needed},
                "The decoder is not seen to use the shared part: with s of another image the group "
                f"follows s in {100 * followed:.1f} % of the pairs, that of an unrelated image in "
                f"{100 * chance:.1f} %, and {_by_chance(needed)}.",
            )
        else:
            yield from _from_discriminative(swap, count)


def _from_discriminative(swap: Mapping[str, Any], count: float) -> Iterator[Finding]:
    """Tests the difference of two shares of the same pairs: each follows s, d or neither."""
    by_s, by_d = swap["group_follows_shared"], swap.get("group_follows_discriminative")
    if by_d is None:
        return
    gap = by_d - by_s
    error = math.sqrt(max(0.0, by_d + by_s - gap**2) / count)
    if gap > _ONE_SIDED * error:
        yield Finding(
            "group_follows_discriminative",
            "warning",
            {"shared": by_s, "discriminative": by_d, "needed": _ONE_SIDED * error},
            "The decoder takes the group from the discriminative part, not from the shared one: "
            f"the group follows d in {100 * by_d:.1f} % of the swapped pairs, s in "
            f"{100 * by_s:.1f} %.",
        )


def _as_random(row: Mapping[str, Any]) -> Iterator[Finding]:
    """Compares the groups with random ones: knowing the classes predicts any grouping."""
    own, random = row["groups"], row["random_groups"]
    # With five random groupings, another one would be below this in 19 of 20 cases.
    needed = random["mean"] + 2.13 * random["std"] * math.sqrt(1 + 1 / 5)
    if own["mean"] <= needed:
        yield Finding(
            "shared_as_random",
            "warning",
            {"groups": own["mean"], "random_groups": random["mean"], "needed": needed},
            "The shared part is not seen to predict its groups better than random ones of the same "
            f"sizes ({100 * own['mean']:.1f} % and {100 * random['mean']:.1f} %; "
            f"{_by_chance(needed)}): it may hold classes, or nothing, but not what a group shares.",
        )


def _of_groups(evidence: Mapping[str, Any], images: int) -> Iterator[Finding]:
    errors = _part(evidence, "group_errors")
    if not errors or errors["share_inside"] is None or not errors["expected_inside"]:
        return
    expected = errors["expected_inside"]
    # An image that every seed gets wrong counts as one error: rates are means over seeds.
    count = (errors["inside"] + errors["across"]) * images
    if count < _FEWEST_ERRORS or expected >= 1:
        return
    needed = expected + _ONE_SIDED * math.sqrt(expected * (1 - expected) / count)
    if errors["share_inside"] <= needed:
        yield Finding(
            "errors_inside_at_chance",
            "warning",
            {"share": errors["share_inside"], "chance": expected, "needed": needed},
            f"{100 * errors['share_inside']:.0f} % of the errors are inside a group, "
            f"{100 * expected:.0f} % are expected of any groups of these sizes, and "
            f"{_by_chance(needed)}: it is not seen that the groups hold the classes that look "
            "alike.",
        )


def _of_maps(evidence: Mapping[str, Any]) -> Iterator[Finding]:
    maps = _part(evidence, "gradcam")
    if not maps or not maps.get("overlap"):
        return
    overlap, images = maps["overlap"], maps["images"]
    least = overlap["mean"] - _ONE_SIDED * overlap["std"] / math.sqrt(max(1, images))
    if least > ALIKE:
        yield Finding(
            "parts_see_the_same",
            "note",
            {"overlap": overlap["mean"], "images": images, "limit": ALIKE},
            f"Both parts look at the same regions: their maps have a correlation of "
            f"{overlap['mean']:.2f} (mean over {images} test images).",
        )


def _of_sizes(groups: Mapping[str, int]) -> Iterator[Finding]:
    sizes = Counter(groups.values())
    if len(sizes) < 2:
        return
    largest, single = max(sizes.values()), sum(size == 1 for size in sizes.values())
    if largest >= _NEARLY_ALL * len(groups):
        yield Finding(
            "one_large_group",
            "note",
            {"classes": largest, "of": len(groups)},
            f"One group holds {largest} of {len(groups)} classes: what it shares is what all "
            "images share.",
        )
    elif single > len(sizes) / 2:
        yield Finding(
            "groups_of_one",
            "note",
            {"groups": len(sizes), "single": single},
            f"{single} of {len(sizes)} groups hold one class: their shared part shares nothing.",
        )


def _by_chance(needed: float) -> str:
    """Returns the one-sided 95 % bound in words; a share below it shows nothing either way."""
    return f"up to {100 * min(1.0, needed):.1f} % may come by chance"


def _part(evidence: Mapping[str, Any], name: str) -> Any:
    """Returns a part of the evidence, or None if it is missing or could not be computed."""
    part = evidence.get(name)
    return None if not part or "error" in part else part
