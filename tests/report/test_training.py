"""Losses of training and validation in one plot: on the page, and in a browser."""

from __future__ import annotations

import json

import pytest

from gsfl_tune.report import write_report
from gsfl_tune.report.files import read_run
from gsfl_tune.report.training import training_curves
from gsfl_tune.run import EpochLog
from tests.report.runs import RunMaker
from tests.report.test_page import page_of

WINNER = 3  # of `RunMaker.finish`


def write(maker: RunMaker, number: int, lines: list[dict]) -> None:
    file = maker.run.trial("search", number) / "epochs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def two_stages(maker: RunMaker, number: int) -> list[dict]:
    """Three epochs of the head and two of finetuning; the second loss of validation is lost."""
    lines = [
        {
            "epoch": epoch,
            "stage": "head" if epoch < 4 else "finetune",
            "train/loss": 3.0 / epoch,
            "train/cross_entropy": 2.0 / epoch,
            "validation/accuracy": 0.1 * epoch,
        }
        | ({} if epoch == 2 else {"validation/nll": 1.0 + epoch})
        for epoch in range(1, 6)
    ]
    write(maker, number, lines)
    return lines


def test_the_page_has_what_the_winner_wrote_after_each_epoch(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    lines = two_stages(maker, WINNER)
    page = page_of(maker.path)
    drawn = json.loads(page.data)["training"]
    assert drawn["trial"] == WINNER
    assert drawn["epochs"] == [1, 2, 3, 4, 5]
    assert drawn["train"] == [each["train/loss"] for each in lines]
    assert drawn["cross_entropy"] == [each["train/cross_entropy"] for each in lines]
    assert drawn["validation"] == [each.get("validation/nll") for each in lines]
    assert drawn["accuracy"] == [each["validation/accuracy"] for each in lines]
    assert drawn["stages"] == [[1, "head"], [4, "finetune"]]
    assert "Training and validation of trial 3, the winner" in page.text("fig-training")


def test_before_the_end_it_is_the_best_finished_trial(tmp_path):
    maker = RunMaker(tmp_path / "run").begin()
    assert "No trial has finished yet" in page_of(maker.path).text("fig-training")
    maker.search()
    best = read_run(maker.path).results.leaderboard(1)[0]["trial"]
    page = page_of(maker.path)
    assert json.loads(page.data)["training"]["trial"] == best
    assert f"trial {best}, the best finished one so far" in page.text("fig-training")


def test_a_loss_of_one_term_is_drawn_once_and_many_epochs_are_thinned(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    alone = [
        {"epoch": n, "train/loss": 1 / n, "train/cross_entropy": 1 / n} for n in range(1, 1001)
    ]
    write(maker, WINNER, alone)
    found = training_curves(read_run(maker.path))
    assert (len(found.epochs), found.cross_entropy) == (1000, [])
    drawn = found.to_json()
    assert len(drawn["epochs"]) <= 121
    assert (drawn["epochs"][0], drawn["epochs"][-1]) == (1, 1000)
    assert drawn["train"] == [1 / epoch for epoch in drawn["epochs"]]
    (maker.run.trial("search", WINNER) / "epochs.jsonl").unlink()
    assert training_curves(read_run(maker.path)) is None
    assert "no epochs.jsonl of the best one" in page_of(maker.path).text("fig-training")


@pytest.mark.parametrize("width", [390, pytest.param(1280, marks=pytest.mark.slow)])
def test_both_losses_are_in_one_plot(visit_page, tmp_path, width):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    two_stages(maker, WINNER)
    text = write_report(maker.path).read_text(encoding="utf-8")
    here = visit_page(text, viewport={"width": width, "height": 800})
    here.page.click("#tab-search")
    panels = here.page.locator("#fig-training .chart > div > svg")
    above, below = panels.nth(0), panels.nth(1)
    # Training loss, its cross-entropy and the validation loss.
    assert above.locator(".series").count() == 3
    assert above.locator(".series").nth(2).locator("path").count() == 1 + 4
    assert below.locator(".series").count() == 1
    assert "finetune" in above.text_content()
    words = here.page.locator("#fig-training .legend li").all_text_contents()
    assert [each.strip() for each in words] == [
        "training loss", "its cross-entropy alone", "validation loss",
    ]  # fmt: skip
    above.locator(".series").nth(2).locator("path").last.hover()
    assert here.page.inner_text("#tip") == "epoch 5: validation loss 6"
    assert here.page.evaluate("document.documentElement.scrollWidth") <= width
    assert here.complaints == []


def test_what_was_written_can_be_read_again(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    records = EpochLog(maker.run.trial("search", WINNER) / "epochs.jsonl").read()
    assert training_curves(read_run(maker.path), WINNER).train == [r["train/loss"] for r in records]
    assert training_curves(read_run(maker.path), 99) is None
