"""What a caption calls unreliable is not drawn at full strength: on the page and in figures."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from gsfl_tune import Run
from gsfl_tune.report.files import read_run
from gsfl_tune.report.importance import Importances
from gsfl_tune.report.page import render
from tests.report.runs import RunMaker

SWAP = {
    "pairs": 500, "group_follows_shared": 0.71, "class_follows_discriminative": 0.44,
    "chance_group": 0.33, "chance_class": 0.08,
}  # fmt: skip
FRONT = [(3, 0.5, 2.5), (6, 0.6, 4.0), (9, 0.7, 8.0)]


def run_of(path, *, noise: bool, reliable: list[bool | None], judge: float) -> RunMaker:
    """A run whose values are noise, or one parameter alone."""
    maker = RunMaker(path).begin().search(90, failed=0, latency=True)
    table = pd.read_parquet(maker.run.trials_parquet)
    random = np.random.default_rng(0)
    dropout = table["params.model.dropout"]
    values = random.uniform(0, 1, len(table)) if noise else 1 - dropout
    table["rungs.0"] = values
    table["value"] = np.where(table["state"] == "COMPLETE", values, np.nan)
    table.to_parquet(maker.run.trials_parquet)
    maker.finish(pareto=FRONT).evidence(swap={**SWAP, "judge_accuracy": judge})
    content = json.loads(maker.run.results_file.read_text())
    for entry, known in zip(content["pareto"], reliable, strict=True):
        entry["latency_reliable"] = known
    maker.run.results_file.write_text(json.dumps(content))
    return maker


def opacities(locator) -> set[str | None]:
    return set(locator.evaluate_all("(all) => all.map((each) => each.getAttribute('opacity'))"))


def test_noise_is_faint_and_an_unreliable_latency_is_hollow(visit_page, tmp_path):
    maker = run_of(tmp_path / "run", noise=True, reliable=[False, True, None], judge=0.4)
    here = visit_page(render(read_run(maker.path)), viewport={"width": 1280, "height": 800})
    page = here.page
    page.click("#tab-search")
    assert page.inner_text("#fig-importance ul").count("not reliable") == 2
    bars = page.locator("#fig-importance svg rect")
    assert bars.count() == 10  # five parameters, at the first rung and at the end
    assert opacities(bars) == {"0.3"}
    bars.first.hover()
    assert "not reliable" in page.inner_text("#tip")
    dots = page.locator("#fig-pareto .chart > svg path[stroke-width='1.6']")
    fills = dots.evaluate_all("(all) => all.map((each) => each.getAttribute('fill'))")
    assert fills == ["var(--card)", "var(--finished)", "var(--finished)"]
    assert "latency not reliable" in page.inner_text("#fig-pareto .legend")
    page.click("#tab-decomposition")
    assert opacities(page.locator("#fig-swap .chart > svg rect")) == {"0.3"}
    assert here.complaints == []


def test_what_can_be_read_is_at_full_strength(visit_page, tmp_path):
    maker = run_of(tmp_path / "run", noise=False, reliable=[True, True, None], judge=0.9)
    here = visit_page(render(read_run(maker.path)), viewport={"width": 1280, "height": 800})
    page = here.page
    page.click("#tab-search")
    assert "not reliable" not in page.inner_text("#fig-importance ul")
    assert opacities(page.locator("#fig-importance svg rect")) == {None}
    hollow = page.locator("#fig-pareto .chart > svg path[fill='var(--card)']")
    assert (hollow.count(), page.locator("#fig-pareto .legend").count()) == (0, 0)
    page.click("#tab-decomposition")
    assert opacities(page.locator("#fig-swap .chart > svg rect")) == {None}


@pytest.mark.parametrize(("noise", "alpha"), [(True, 0.3), (False, 1.0)])
def test_bars_of_a_figure_are_as_strong_as_they_may_be(tmp_path, noise, alpha):
    maker = run_of(tmp_path / "run", noise=noise, reliable=[None] * 3, judge=0.9)
    (axes,) = Run(maker.path).plot_importance().axes
    assert {bar.get_alpha() for bar in axes.patches} == {alpha}


def test_a_hint_is_between():
    strengths = [Importances(20, explained, []).strength for explained in (0.1, 0.3, 0.6)]
    assert strengths == sorted(set(strengths))
    assert strengths[-1] == 1
