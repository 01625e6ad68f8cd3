"""What would be bad of the winner's own parts: shared part, decoder, groups."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gsfl_tune.run.results import Finding

# Of the mean square of s: below, s is one point for all images.
COLLAPSED = 0.01
_ONE_SIDED = 1.645
_FEWEST_ERRORS = 20


def of_parts(evidence: Mapping[str, Any], images: int) -> Iterator[Finding]:
    """Finds what holds of a GSFL winner; nothing of a plain one.

    Args:
        evidence: Content of ``evidence.json``.
        images: Test images.
    """
    yield from _of_shared_part(evidence)
    yield from _of_groups(evidence, images)


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
                f"The shared part knows no group: a linear classifier of s names the group of "
                f"{100 * own:.1f} % of the test images, always naming the largest gets "
                f"{100 * chance:.1f} %.",
            )
        else:
            yield from _as_random(rows["s"])
    swap = _part(evidence, "swap")
    followed = swap.get("group_follows_shared") if swap else None
    chance = swap.get("chance_group") if swap else None
    if swap and followed is not None and chance is not None and not collapsed:
        # Pairs share images: no more of them count than there are images.
        count = min(swap["pairs"] / 2, probes["images"] if probes else 200)
        needed = chance + _ONE_SIDED * math.sqrt(chance * (1 - chance) / count)
        if followed <= needed:
            yield Finding(
                "swap_at_chance",
                "warning",
                {"group_follows_shared": followed, "chance": chance, "needed": needed},
                "The decoder takes nothing from the shared part: with s of another image the group "
                f"follows s in {100 * followed:.1f} % of the pairs, by chance in "
                f"{100 * chance:.1f} %.",
            )
        else:
            yield from _from_discriminative(swap, count)


def _from_discriminative(swap: Mapping[str, Any], count: float) -> Iterator[Finding]:
    """A pair follows s, d or neither: the difference of two shares of the same pairs."""
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
            f"of swapped pairs the group follows d in {100 * by_d:.1f} %, s in "
            f"{100 * by_s:.1f} %.",
        )


def _as_random(row: Mapping[str, Any]) -> Iterator[Finding]:
    """Who knows classes knows every grouping of them, a meaningless one too."""
    own, random = row["groups"], row["random_groups"]
    # Five random groupings: the next one lies within this, 19 times of 20.
    needed = random["mean"] + 2.13 * random["std"] * math.sqrt(1 + 1 / 5)
    if own["mean"] <= needed:
        yield Finding(
            "shared_as_random",
            "warning",
            {"groups": own["mean"], "random_groups": random["mean"], "needed": needed},
            "The shared part knows its groups no better than random ones of the same sizes "
            f"({100 * own['mean']:.1f} % and {100 * random['mean']:.1f} %): it holds classes, or "
            "nothing, but not what a group shares.",
        )


def _of_groups(evidence: Mapping[str, Any], images: int) -> Iterator[Finding]:
    errors = _part(evidence, "group_errors")
    if not errors or errors["share_inside"] is None or not errors["expected_inside"]:
        return
    expected = errors["expected_inside"]
    # An image that every seed gets wrong is one error: rates are means over seeds.
    count = (errors["inside"] + errors["across"]) * images
    if count < _FEWEST_ERRORS or expected >= 1:
        return
    needed = expected + _ONE_SIDED * math.sqrt(expected * (1 - expected) / count)
    if errors["share_inside"] <= needed:
        yield Finding(
            "errors_inside_at_chance",
            "warning",
            {"share": errors["share_inside"], "chance": expected, "needed": needed},
            f"{100 * errors['share_inside']:.0f} % of the errors stay inside a group, by chance "
            f"{100 * expected:.0f} % would: the groups do not hold the classes that look alike.",
        )


def _part(evidence: Mapping[str, Any], name: str) -> Any:
    """A part of the evidence, or None where it is missing or could not be computed."""
    part = evidence.get(name)
    return None if not part or "error" in part else part
