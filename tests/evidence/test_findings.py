"""Every finding holds where it should, is silent where it should be, and the worst comes first."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gsfl_tune.evidence import Searched, Tested, difference, find, mean_interval
from gsfl_tune.evidence.findings import SEVERITIES
from gsfl_tune.evidence.write import spread_share
from gsfl_tune.experiment import Experiment
from gsfl_tune.run.results import Calibration, Finding, Outcome, Probe, Results, Score
from gsfl_tune.training.metrics import classification_metrics

CLASSES = 10
SPACE = Experiment.parse(
    "name: x\ndata: {source: typefaces}\nmodel: {dropout: {float: [0, 0.7]}}\n"
).space

GOOD: dict[str, Any] = {
    "group_errors": {"inside": 0.12, "across": 0.03, "share_inside": 0.8, "expected_inside": 0.3},
    "shared": {"spread": 0.4, "by_seed": [0.4, 0.4, 0.4]},
    "probes": {
        "images": 600,
        "chance": 0.4,
        "parts": [
            {
                "part": "s",
                "groups": {"mean": 0.9, "std": 0.01},
                "random_groups": {"mean": 0.5, "std": 0.03},
            }
        ],
    },
    "swap": {"pairs": 4000, "group_follows_shared": 0.8, "chance_group": 0.35},
    "per_class_accuracy": {f"class {number}": 0.85 for number in range(CLASSES)},
}


def logits(accuracy: float, *, seeds: int, images: int, sure: float = 3.4, seed: int = 0) -> Any:
    """Models that are right so often, with a confidence that fits at 0.85."""
    generator = np.random.default_rng(seed)
    labels = np.arange(images) % CLASSES
    # Harder images are hard for all models.
    ease = np.random.default_rng(99).random(images)
    table = np.zeros((seeds, images, CLASSES))
    for own in table:
        right = ease + 0.1 * generator.normal(size=images) < accuracy
        said = np.where(right, labels, (labels + 1) % CLASSES)
        # A little surer of what is easy, so that confidence tells right from wrong.
        surer = 1 + 0.01 * (0.5 - ease)
        own[np.arange(images), said] = surer * (sure + np.log(CLASSES - 1) - np.log(5))
    return table


def results(tested: Tested, **changes: Any) -> Results:
    def outcome(table: Any, validation: float) -> Outcome:
        right = table.argmax(-1) == tested.labels
        scored = {"accuracy": Score.of(right.mean(1))}
        return Outcome(
            config={},
            validation={"accuracy": Score.of([validation]), "nll": Score.of([0.5])},
            test=scored,
            seeds=list(range(len(table))),
            params={"model.dropout": 0.3},
            trial=1,
            interval=mean_interval(right),
        )

    assert tested.control is not None
    assert tested.probe is not None
    own, plain = (each.argmax(-1) == tested.labels for each in (tested.winner, tested.control))
    probe = tested.probe.argmax(-1) == tested.labels
    found = Results(
        name="x",
        metric="validation/accuracy",
        trials={},
        winner=outcome(tested.winner, 0.86),
        control=outcome(tested.control, 0.8),
        difference=difference(own, plain),
        probe=Probe(
            {"accuracy": Score.of([probe.mean()])},
            difference(own, probe),
            {"accuracy": Score.of([0.75]), "nll": Score.of([0.8])},
        ),
    )
    return replace(found, **changes)


def world(
    winner: float = 0.85,
    control: float = 0.78,
    probe: float = 0.7,
    *,
    images: int = 600,
    seeds: int = 3,
    sure: float = 3.4,
) -> Tested:
    return Tested(
        np.arange(images) % CLASSES,
        logits(winner, seeds=seeds, images=images, sure=sure),
        logits(control, seeds=seeds, images=images, seed=1),
        logits(probe, seeds=1, images=images, seed=2)[0],
    )


def codes(
    tested: Tested,
    evidence: dict[str, Any] | None = None,
    searched: Searched | None = None,
    **changes: Any,
) -> list[str]:
    content = GOOD | (evidence or {})
    whole = results(tested, **changes)
    return [e.code for e in find(whole, content, tested, space=SPACE, searched=searched)]


def test_a_good_winner_has_none():
    assert codes(world()) == []


def test_below_simpler_models():
    found = codes(world(winner=0.6, control=0.6))
    assert {"winner_below_probe", "control_below_probe"} <= set(found)
    assert "winner_below_control" in codes(world(winner=0.7))
    assert "not_above_control" in codes(world(winner=0.78))


def test_below_by_less_than_the_test_images_tell_is_not_called_below():
    """It is a point below, which a glance at the numbers would call worse."""
    tested = world(winner=0.69)
    found = results(tested).probe
    assert found is not None
    assert found.difference is not None
    assert found.difference.mean < 0
    assert "winner_below_probe" not in codes(tested)


def test_worse_by_less_than_the_test_images_can_tell_is_not_called_worse():
    assert "control_below_probe" not in codes(world(control=0.695, images=150))


def test_ahead_on_validation_is_the_first_thing_told():
    tested = world()
    plain = results(tested)
    assert plain.control is not None
    better = {"accuracy": Score.of([0.87]), "nll": Score.of([0.4])}
    found = find(replace(plain, control=replace(plain.control, validation=better)), GOOD, tested)
    assert found[0].code == "control_ahead_on_validation"
    assert "disagrees_with_control" in [each.code for each in found]
    assert found[0].numbers["control"] == pytest.approx(0.87)


@pytest.mark.parametrize(
    ("evidence", "code"),
    [
        ({"shared": {"spread": 1e-4, "by_seed": [1e-4]}}, "shared_collapsed"),
        ({"swap": {"pairs": 4000, "group_follows_shared": 0.36, "chance_group": 0.35}},
         "swap_at_chance"),
        ({"swap": {"pairs": 4000, "group_follows_shared": 0.42, "chance_group": 0.3,
                   "group_follows_discriminative": 0.58}}, "group_follows_discriminative"),
        ({"group_errors": {"inside": 0.05, "across": 0.1, "share_inside": 0.33,
                           "expected_inside": 0.3}}, "errors_inside_at_chance"),
        ({"per_class_accuracy": {f"class {n}": 0.1 if n == 4 else 0.9 for n in range(CLASSES)}},
         "classes_far_below"),
    ],
)  # fmt: skip
def test_what_would_be_bad_of_the_parts(evidence, code):
    assert codes(world(), evidence) == [code]


def test_a_shared_part_at_chance_and_one_that_holds_classes():
    def probes(groups: float, random: float) -> dict[str, Any]:
        row = {"part": "s", "groups": {"mean": groups, "std": 0.01}}
        row["random_groups"] = {"mean": random, "std": 0.03}
        return {"probes": {"images": 600, "chance": 0.4, "parts": [row]}}

    assert codes(world(), probes(0.41, 0.39)) == ["shared_at_chance"]
    assert codes(world(), probes(0.9, 0.88)) == ["shared_as_random"]


def test_a_collapsed_part_is_told_once():
    """At chance as well, of course: one cause, one finding."""
    evidence = {"shared": {"spread": 0.0, "by_seed": [0.0]}}
    evidence["swap"] = {"pairs": 4000, "group_follows_shared": 0.35, "chance_group": 0.35}
    tested = world()
    (told,) = find(results(tested), GOOD | evidence, tested, space=SPACE)
    assert told.code == "shared_collapsed"
    assert "The shared part has collapsed" in told.sentence
    assert "this is a plain classifier" in told.sentence


def test_the_spread_of_one_point_is_nothing_whatever_its_length():
    generator = np.random.default_rng(0)
    point = generator.random((1, 8))
    assert spread_share(np.repeat(point, 50, axis=0)) < 1e-12
    assert spread_share(np.zeros((50, 8))) == 0.0
    assert spread_share(generator.normal(size=(500, 8))) > 0.95


def test_confidence_that_is_worse_than_the_probes():
    assert {"nll_worse_than_probe", "ece_worse_than_probe"} <= set(
        codes(world(sure=60.0, winner=0.72))
    )
    # Sure and wrong as often as the probe is unsure and right: as far off.
    # All answers then have the confidence 1, which cannot tell right from wrong.
    assert codes(world(sure=60.0)) == [
        "confidence_tells_nothing",
        "overconfident",
        "nll_worse_than_probe",
    ]


def with_temperatures(tested: Tested, winner: float = 1.0, probe: float = 1.0) -> Results:
    """Results whose bundles hold these temperatures."""

    def fitted(temperature: float) -> Calibration:
        score = {name: Score.of([0.5]) for name in ("nll", "ece")}
        return Calibration(temperature, 100, 3, 20, score, score)

    found = results(tested)
    assert found.probe is not None
    return replace(
        found,
        winner=replace(found.winner, calibration=fitted(winner)),
        probe=replace(found.probe, calibration=fitted(probe)),
    )


def found_with(tested: Tested, **temperatures: float) -> dict[str, Finding]:
    found = find(with_temperatures(tested, **temperatures), GOOD, tested, space=SPACE)
    return {each.code: each for each in found}


def test_confidence_is_compared_as_it_is_deployed():
    """Each model's temperature is in its bundle: what it mends is no finding."""
    both = {"nll_worse_than_probe", "ece_worse_than_probe"}
    sure = world(sure=60.0, winner=0.72)
    found = found_with(sure)
    assert both <= set(found)
    assert not both & set(found_with(sure, winner=15.0))
    # A probe that is as sure, until its temperature makes it the probe of before.
    other = replace(sure, probe=20 * sure.probe)
    assert not both & set(found_with(other))
    again = found_with(other, probe=20.0)
    for code in both:
        assert again[code].numbers == pytest.approx(found[code].numbers)


def test_a_temperature_that_does_not_carry_over():
    tested = world()
    found = found_with(tested, winner=0.2)["temperature_does_not_carry_over"]
    before, after = (
        np.mean([classification_metrics(own / t, tested.labels)["nll"] for own in tested.winner])
        for t in (1.0, 0.2)
    )
    assert found.severity == "warning"
    assert found.numbers["mean"] == pytest.approx(after - before)
    assert found.numbers["temperature"] == 0.2
    # With one seed too; without a temperature, or with one that helps, there is nothing to tell.
    assert "temperature_does_not_carry_over" in found_with(world(seeds=1), winner=0.2)
    for helpful in (1.0, 15.0):
        assert "temperature_does_not_carry_over" not in found_with(world(sure=60.0), winner=helpful)
    assert "temperature_does_not_carry_over" not in codes(tested)


def test_a_temperature_that_is_worse_by_chance_is_no_finding():
    tested = world(images=150)
    before, after = (
        np.mean([classification_metrics(own / t, tested.labels)["nll"] for own in tested.winner])
        for t in (1.0, 0.85)
    )
    assert after > before
    assert "temperature_does_not_carry_over" not in found_with(tested, winner=0.85)


def test_few_images_one_seed_and_the_end_of_a_range():
    assert "few_images" in codes(world(images=136))
    assert "one_seed" in codes(world(seeds=1))
    tested = world()
    edge = results(tested)
    edge = replace(edge, winner=replace(edge.winner, params={"model.dropout": 0.69}))
    (found,) = find(edge, GOOD, tested, space=SPACE)
    assert (found.code, found.severity) == ("range_end", "note")
    assert found.numbers == {"parameter": "model.dropout", "value": 0.69, "end": "upper"}


def test_as_many_groups_as_there_can_be_are_not_the_end_of_a_range():
    """Half the classes bound it, so no better value lies outside."""
    space = Experiment.parse(
        "name: x\ndata: {source: typefaces}\nmodel: {groups: {count: {int: [2, 5]}}}\n"
    ).space
    tested = world()
    groups = {f"class {number}": number % 5 for number in range(CLASSES)}
    found = results(tested, groups=groups)
    found = replace(found, winner=replace(found.winner, params={"model.groups.count": 5}))
    assert find(found, GOOD, tested, space=space) == []
    more = replace(found, groups=groups | {f"more {number}": 0 for number in range(9)})
    assert [each.code for each in find(more, GOOD, tested, space=space)] == ["range_end"]


def validated(table: Results, **accuracies: float) -> Results:
    """Results whose models have these accuracies on validation."""
    for model, accuracy in accuracies.items():
        scores = {"accuracy": Score.of([accuracy]), "nll": Score.of([0.5])}
        table = replace(table, **{model: replace(getattr(table, model), validation=scores)})
    return table


def test_a_probe_that_is_ahead_on_validation_and_disagrees():
    tested = world()
    found = find(validated(results(tested), probe=0.9), GOOD, tested, space=SPACE)
    assert [each.code for each in found] == ["probe_ahead_on_validation", "disagrees_with_probe"]
    assert found[0].numbers["probe"] == pytest.approx(0.9)


def test_not_above_the_probe():
    assert "not_above_probe" in codes(world(winner=0.7, control=0.7))


def test_validation_far_above_test():
    tested = world()
    found = find(validated(results(tested), winner=0.97), GOOD, tested, space=SPACE)
    assert [each.code for each in found] == ["validation_above_test"]


def test_without_a_control_that_is_said():
    assert codes(world(), control=None, difference=None) == ["no_control"]


def test_confidence_that_does_not_tell_right_from_wrong():
    tested = world()
    # Every answer has its own confidence, drawn without a look at whether it is right.
    drawn = np.random.default_rng(3).uniform(0.5, 2, size=(*tested.winner.shape[:2], 1))
    assert "confidence_tells_nothing" in codes(replace(tested, winner=tested.winner * drawn))
    surer = np.where(tested.winner.argmax(-1) == tested.labels, 2.0, 0.5)[..., None]
    assert "confidence_tells_nothing" not in codes(replace(tested, winner=tested.winner * surer))


@pytest.mark.parametrize(
    ("groups", "code"),
    [
        ([0] * 8 + [1, 1], "one_large_group"),
        ([0] * 7 + [1, 2, 3], "groups_of_one"),
        ([0, 0, 0, 1, 1, 1, 2, 2, 2, 3], None),
        ([0] * 10, None),
    ],
)
def test_groups_that_share_little(groups, code):
    named = {f"class {number}": group for number, group in enumerate(groups)}
    assert codes(world(), groups=named) == ([code] if code else [])


def test_parts_that_look_at_the_same_regions():
    def seen(mean: float, std: float = 0.02) -> dict[str, Any]:
        return {"gradcam": {"images": 96, "overlap": {"mean": mean, "std": std}}}

    assert codes(world(), seen(0.99)) == ["parts_see_the_same"]
    assert codes(world(), seen(0.6)) == []
    assert codes(world(), seen(0.96, std=0.3)) == []  # not shown to be above


def test_every_code_of_the_page_has_a_test():
    page = (Path(__file__).parents[2] / "docs/evidence.md").read_text()
    rows = re.findall(r"^\| (`[^|]*) \| (?:severe|warning|note)(?: ¹)? \|", page, re.MULTILINE)
    listed = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    folder = Path(__file__).parents[2] / "gsfl_tune/evidence"
    sources = "".join(file.read_text() for file in sorted(folder.glob("findings*.py")))
    made = set(re.findall(r"Finding\(\s*\"([a-z_]+)\"", sources))
    for kind in re.findall(r"Finding\(\s*f\"([a-z_{}.]+)\"", sources):
        made |= {re.sub(r"\{[a-z.]+\}", model, kind) for model in ("control", "probe")}
    assert listed == made
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_findings*.py"))
    assert [code for code in sorted(listed) if f'"{code}"' not in tests] == []


def test_parts_that_could_not_be_computed_are_no_findings():
    broken = {name: {"error": "out of memory"} for name in GOOD if name != "per_class_accuracy"}
    assert codes(world(), broken) == []


def test_the_worst_comes_first_and_survives_the_file():
    tested = world(winner=0.6, images=136, seeds=1)
    found = find(results(tested), GOOD, tested, space=SPACE)
    places = [SEVERITIES.index(each.severity) for each in found]
    assert places == sorted(places)
    assert len(set(places)) > 1
    whole = replace(results(tested), findings=found)
    read = Results.from_json(whole.to_json()).findings
    assert read == found
    assert isinstance(read[0], Finding)
