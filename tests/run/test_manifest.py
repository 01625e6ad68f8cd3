"""A run is continued only as what it is."""

import json
import shutil
import threading

import pytest

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.run import RunDirectory, read_json, write_json
from gsfl_tune.run.manifest import SPACE_CHANGED, Clock, Manifest
from gsfl_tune.run.results import Outcome, Results, Score, write_results
from tests.waiting import wait_until


def experiment(trials=3, *overrides):
    text = f"name: t\ndata: {{source: typefaces}}\nsearch: {{trials: {trials}}}\n"
    return Experiment.parse(text, overrides=overrides)


@pytest.fixture
def manifest(tmp_path):
    made = Manifest(RunDirectory(tmp_path / "run"))
    made.begin(experiment(), data="aaaa", environment={}, seconds=1.0)
    return made


def test_a_run_is_not_begun_over_another(manifest):
    manifest.check(resume=True)
    with pytest.raises(UserError, match="--resume"):
        manifest.check(resume=False)


def test_there_must_be_something_to_resume(tmp_path):
    fresh = Manifest(RunDirectory(tmp_path / "none"))
    fresh.check(resume=False)
    with pytest.raises(UserError, match="no run to resume"):
        fresh.check(resume=True)


def test_either_will_do_for_a_scheduler_that_starts_a_command_again(manifest, tmp_path):
    manifest.check(resume=None)
    Manifest(RunDirectory(tmp_path / "none")).check(resume=None)
    write_json(manifest.run.manifest_file, {"format": 0})
    with pytest.raises(UserError, match="format 0"):
        manifest.check(resume=None)


def test_other_images_are_refused(manifest):
    manifest.refuse_other_data("aaaa")
    with pytest.raises(UserError, match="images or their split"):
        manifest.refuse_other_data("bbbb")


def test_results_of_a_smaller_budget_are_not_those_of_a_larger_one(manifest):
    score = {"accuracy": Score.of([0.5])}
    outcome = Outcome(config={}, validation=score, test=score, seeds=[1])
    write_results(manifest.run.results_file, Results("t", "validation/accuracy", {}, outcome))
    assert manifest.finished(experiment())
    assert not manifest.finished(experiment(trials=9))
    manifest.begin(experiment(trials=9), data="aaaa", environment={}, seconds=1.0)
    # Interrupted here: the old results must not pass for those of the nine trials.
    assert not manifest.finished(experiment(trials=9))


def test_seconds_add_up_over_drivers(manifest):
    with manifest.clock("search"):
        pass
    manifest.begin(experiment(), data="aaaa", environment={}, seconds=2.0)
    seconds = manifest.seconds()
    assert seconds["preflight"] == 3.0
    assert seconds["total"] == pytest.approx(seconds["preflight"] + seconds["search"])


@pytest.mark.parametrize("phase", ["search", "control search", "retraining", "evidence"])
def test_what_a_killed_driver_has_taken_counts(manifest, monkeypatch, phase):
    monkeypatch.setattr("gsfl_tune.run.manifest.SECONDS_BETWEEN_WRITES", 0.01)

    def known():
        return Manifest(manifest.run).seconds().get(phase, 0.0)

    # As in a driver that is killed: nothing of what comes at the end of the phase happens yet.
    with manifest.clock(phase):
        wait_until(lambda: known() >= 0.02, "the clock has written")
        before = known()
        with Manifest(manifest.run).clock(phase) as resumed:
            assert resumed.seconds >= before


def test_a_clock_brings_no_run_directory_back_that_is_gone(manifest, monkeypatch):
    monkeypatch.setattr("gsfl_tune.run.manifest.SECONDS_BETWEEN_WRITES", 0.01)
    clock = Clock(manifest, "search")
    shutil.rmtree(manifest.run.path)
    over = threading.Event()
    thread = threading.Thread(target=clock.keep, args=(over,))
    thread.start()
    thread.join(0.1)
    assert thread.is_alive()
    over.set()
    thread.join()
    assert not manifest.run.path.exists()


def test_a_clock_and_the_driver_write_one_after_the_other(manifest, monkeypatch):
    monkeypatch.setattr("gsfl_tune.run.manifest.SECONDS_BETWEEN_WRITES", 0.0)
    with manifest.clock("retraining"):
        manifest.space_changed()
        for number in range(200):
            manifest.set_seconds("search", float(number))
            # Whoever has read before this write, and writes after it, brings the last number back.
            assert manifest.seconds()["search"] == number
    assert SPACE_CHANGED in read_json(manifest.run.manifest_file)
    assert manifest.seconds()["retraining"] > 0


def test_every_driver_is_written_down_with_the_last_that_was_heard_of_it(manifest):
    def drivers():
        return json.loads(manifest.run.manifest_file.read_text())["drivers"]

    (first,) = drivers()
    with manifest.clock("search") as clock:
        while clock.seconds < 0.05:
            pass
    (ended,) = drivers()
    assert ended["begin"] == first["begin"] < ended["end"]
    Manifest(manifest.run).begin(experiment(), data="aaaa", environment={}, seconds=1.0)
    before, second = drivers()
    assert before == ended
    assert second["begin"] >= ended["end"]


def test_a_change_of_the_space_is_remembered_by_later_drivers(manifest):
    def changed():
        return json.loads(manifest.run.manifest_file.read_text()).get(SPACE_CHANGED)

    assert changed() is None
    manifest.space_changed()
    when = changed()
    assert when is not None
    Manifest(manifest.run).begin(experiment(), data="aaaa", environment={}, seconds=1.0)
    assert changed() == when


def test_limits_make_another_run_of_it(manifest):
    score = {"accuracy": Score.of([0.5])}
    outcome = Outcome(config={}, validation=score, test=score, seeds=[1])
    write_results(manifest.run.results_file, Results("t", "validation/accuracy", {}, outcome))
    assert not manifest.finished(experiment(3, "search.time_budget=6h"))
    assert not manifest.finished(experiment(3, "search.target=0.9"))
    # How long a trial may take and what is kept has nothing to do with results that are there.
    assert manifest.finished(experiment(3, "search.trial_timeout=1h", "search.keep_checkpoints=0"))


def test_results_from_before_there_were_limits_are_results(manifest):
    score = {"accuracy": Score.of([0.5])}
    outcome = Outcome(config={}, validation=score, test=score, seeds=[1])
    write_results(manifest.run.results_file, Results("t", "validation/accuracy", {}, outcome))
    content = json.loads(manifest.run.manifest_file.read_text())
    del content["settings"]["time_budget"], content["settings"]["target"]
    manifest.run.manifest_file.write_text(json.dumps(content))
    assert manifest.finished(experiment())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"format": 0}', "found a run of format 0, this version reads 1; continue it with"),
        ('{"format": 99}', "found a run of format 99"),
        ("{}", "found a run of format None"),
        ('{"format": 1', "cannot be read"),
        ("[]", "format None"),
    ],
)
def test_a_run_of_another_format_is_refused_with_a_sentence(manifest, content, words):
    manifest.run.manifest_file.write_text(content)
    with pytest.raises(UserError, match=words):
        manifest.check(resume=True)


def test_it_tells_how_its_driver_ended(manifest):
    def ending():
        return read_json(manifest.run.manifest_file)["drivers"][-1].get("ending")

    assert ending() is None  # as after a kill
    with manifest.ending():
        pass
    assert ending() == {"state": "finished"}
    with pytest.raises(LookupError), manifest.ending(LookupError):
        raise LookupError
    assert ending() == {"state": "interrupted"}
    with pytest.raises(KeyboardInterrupt), manifest.ending():
        raise KeyboardInterrupt
    assert ending() == {"state": "interrupted"}
    with pytest.raises(OSError), manifest.ending():
        raise OSError("no space left\non the device")
    assert ending() == {"state": "failed", "reason": "no space left"}
    manifest.begin(experiment(5), data="aaaa", environment={}, seconds=1.0)
    assert ending() is None


def test_a_run_directory_that_is_gone_stays_so(manifest):
    def fails():
        shutil.rmtree(manifest.run.path)
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"), manifest.ending():
        fails()
    assert not manifest.run.path.exists()
