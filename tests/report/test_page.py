"""The page, as a file: what it says in each state of a run, and that it needs nothing else."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from gsfl_tune.data import prepare
from gsfl_tune.report import write_report
from gsfl_tune.report.files import read_run
from gsfl_tune.report.page import render
from gsfl_tune.run.results import Finding
from tests.data.conftest import configure
from tests.data.test_held_out import given_parts
from tests.data.test_measured_split import shelves
from tests.report.runs import RunMaker

EVIL = '</script><script>alert("x")</script><img src=x onerror=alert(1)> & \u2028'


class Reader(HTMLParser):
    """Text by the id of the card around it, and everything that could load something."""

    VOID = ("meta", "link", "img", "input", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts = 0
        self.ids: list[str] = []
        self.data = ""
        self._stack: list[tuple[str, str | None]] = []
        self._text: dict[str, list[str]] = {}
        self.feed(page)
        assert self._stack == [], "elements are left open"

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.ids += [known["id"]] if known.get("id") else []
        self.scripts += tag == "script"
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            if known.get(name):
                self.loads.append(known[name])
        assert not any(name.startswith("on") for name in known), known
        if tag in ("td", "th", "li", "p", "dd", "dt"):
            self.handle_data(" ")
        if tag not in self.VOID:
            self._stack.append((tag, known.get("id")))

    def handle_endtag(self, tag):
        assert self._stack.pop()[0] == tag

    def handle_data(self, data):
        if self._stack and self._stack[-1] == ("script", "run-data"):
            self.data += data
        elif self._stack and self._stack[-1][0] not in ("script", "style"):
            for _, name in self._stack:
                if name:
                    self._text.setdefault(name, []).append(data)

    def text(self, name: str) -> str:
        return " ".join("".join(self._text.get(name, [])).split())


def page_of(path) -> Reader:
    return Reader(render(read_run(path)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    maker = RunMaker(tmp_path_factory.mktemp("whole") / "run")
    return maker.begin().search().finish().evidence().path


def test_a_finished_run_answers_first(whole):
    page = page_of(whole)
    answer = page.text("headline")
    assert answer.startswith("72.3 % (68.0 to 77.0)")
    assert "95 % interval over 3 seeds and the test images" in answer
    assert "a plain head with a search of its own" in answer
    assert "69.0 % (65.0 to 73.0)" in answer
    assert "+3.3 points, 95 % interval +0.4 to +6.1 (t interval over seeds and" in answer
    assert (
        "on validation, where the winner was chosen, +2.0 points; the winner is better than the "
        "control"
    ) in answer
    assert "±" not in page.text("models-table")
    assert "The control is a plain head with a search of its own" in page.text("fig-models")
    assert "upper end" in page.text("settings")
    assert "float 0.0001 to 0.01, log" in page.text("configuration")
    assert "2 failed" in page.text("cost")
    reproduce = page.text("reproduce")
    assert f"gsfl-tune search {whole}/experiment.yaml --run-dir {whole}-again" in reproduce
    assert "--set model.dropout=0.302 --set training.head.learning_rate=0.0099" in reproduce


def test_the_first_card_begins_with_what_is_better_and_lists_what_holds(tmp_path):
    found = [
        Finding(
            "shared_collapsed", "severe", {}, "The shared part has collapsed: this is a plain."
        ),
        Finding("few_images", "warning", {}, "Only 136 test images <b>."),
        Finding("range_end", "note", {}, "dropout lies at an end."),
    ]
    maker = RunMaker(tmp_path / "run").begin().finish(findings=found, ahead=True)
    answer = page_of(maker.path).text("headline")
    assert answer.startswith(
        "The linear probe is better than the winner on the validation images (94.9 % against "
        "80.0 %): its bundle is in best-simple/."
    )
    assert "validation says that the linear probe is better: not settled" in answer
    places = [answer.index(f"{each.severity} {each.sentence}") for each in found]
    assert places == sorted(places)


def test_no_line_of_a_sentence_begins_with_a_percent_sign(whole):
    html = render(read_run(whole))
    sentences = re.findall(r"<p>([^<]*)</p>", html[html.index('id="headline"') :])[:2]
    assert any("%" in each for each in sentences)
    assert not any(" %" in each for each in sentences)


def test_what_an_older_version_left_is_shown_with_a_word_about_it(whole, tmp_path):
    maker = RunMaker(tmp_path / "run").begin().finish(control=False)
    content = json.loads(maker.run.results_file.read_text())
    del content["findings"], content["probe"]["validation"], content["winner"]["interval"]
    maker.run.results_file.write_text(json.dumps(content))
    answer = page_of(maker.path).text("headline")
    assert answer.startswith("72.3 % test accuracy of the winner; mean over 3 seeds")
    assert "did not check for findings" in answer
    assert "There is no control" in answer


def test_every_picture_of_the_issue_is_there_with_what_would_be_bad(whole):
    page = page_of(whole)
    for name in (
        "models", "curves", "training", "best", "parallel", "importance", "slices", "rungs",
        "timeline",
        "classes", "confusion", "calibration", "risk", "map", "probes", "swap",
    ):  # fmt: skip
        text = page.text(f"fig-{name}")
        assert "Signs of a problem:" in text, name
    for name in ("failures", "fig-errors", "fig-pairs", "fig-groups", "fig-gradcam"):
        assert "Signs of a problem:" in page.text(name), name
    assert "non-finite train/loss in epoch 3 (head stage)" in page.text("failures")
    assert "66.0 % (by chance: 30.0 %)" in page.text("fig-errors")
    assert "gull 0 and gull 1" in page.text("pair-1")
    assert "different groups" in page.text("pair-1")
    assert sum(load.startswith("data:image/jpeg;base64,") for load in page.loads) == 6


def test_the_page_needs_nothing_from_outside(whole):
    html = render(read_run(whole))
    page = Reader(html)
    assert all(load.startswith(("data:", "#")) for load in page.loads)
    # The one address in it names the vocabulary of SVG; nobody fetches it.
    assert set(re.findall(r"https?://[^\s\"'<>)]+", html)) == {"http://www.w3.org/2000/svg"}
    assert "@import" not in html
    assert "url(#clip-curves)" in html
    assert html.count("url(") == 1
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    assert "default-src &#39;none&#39;" in policy[1]
    assert "connect-src &#39;none&#39;" in policy[1]
    assert len(html) < 1_000_000


def test_ids_are_unique_and_tables_have_names(whole):
    page = page_of(whole)
    assert len(page.ids) == len(set(page.ids))


def test_names_are_harmless_wherever_they_come_from(tmp_path):
    names = tuple(f"{EVIL}{n}" for n in range(12))
    maker = RunMaker(tmp_path / "run", names=names).begin().search().finish()
    entry = {"kind": "gradcam", "file": EVIL, "title": EVIL, "caption": EVIL, "classes": [EVIL]}
    maker.evidence(pictures=[entry], swap={"error": EVIL})
    page = page_of(maker.path)
    assert page.scripts == 2
    assert json.loads(page.data)["classes"] == list(names)
    assert EVIL.split()[0] in page.text("fig-classes")
    assert EVIL.split()[0] in page.text("fig-swap")


def test_what_was_measured_of_the_split_is_told(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().finish()
    assert "nearer to the training" not in page_of(maker.path).text("looks")
    config = configure("folder", given_parts(tmp_path / "photographs", near=True))
    content = prepare(config, cache_dir=tmp_path / "cache").summary()
    maker.run.data_file.write_text(json.dumps(content))
    looks = page_of(maker.path).text("looks")
    assert "the given validation images are nearer to the training images than test" in looks
    assert "data.split.validation: resplit joins it" in looks


@pytest.mark.parametrize(
    ("test", "told", "card"),
    [
        (False, "data.split.by: near_duplicate holds out clusters", "looks"),
        # A problem that is solved is none.
        (True, "clusters of similar photographs are held out as a whole", "cost"),
    ],
)
def test_bursts_are_told_with_and_without_a_test_part(tmp_path, test, told, card):
    maker = RunMaker(tmp_path / "run").begin().finish()
    config = configure("folder", shelves(tmp_path / "photographs", test=test))
    content = prepare(config, cache_dir=tmp_path / "cache").summary()
    maker.run.data_file.write_text(json.dumps(content))
    page = page_of(maker.path)
    assert told in page.text(card)
    assert card == "looks" or told not in page.text("looks")


def test_a_run_that_has_just_begun(begun):
    page = page_of(begun)
    assert "no trial has finished yet" in page.text("headline")
    assert "--resume" in page.text("reproduce")
    for name in ("fig-curves", "fig-best", "fig-parallel", "fig-slices", "trials", "failures"):
        assert "There is no trial yet" in page.text(name) or "No trial has" in page.text(name), name
    for name in ("fig-classes", "fig-confusion", "fig-calibration", "fig-map", "fig-probes"):
        assert "The run is not finished" in page.text(name), name
    json.loads(page.data)


def test_a_run_under_way(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search(12, running=2)
    page = page_of(maker.path)
    assert "best validation/accuracy so far (trial" in page.text("headline")
    assert "2 trials are running" in page.text("headline")
    assert "running" in page.text("all-trials")
    assert "Fewer than 10 trials" not in page.text("fig-importance")


@pytest.mark.parametrize(
    ("trials", "failed"), [(1, 0), (1, 1), (3, 3)], ids=["one", "one failed", "failed only"]
)
def test_few_trials_make_a_sensible_page(tmp_path, trials, failed):
    maker = RunMaker(tmp_path / "run").begin().search(trials, failed=failed)
    page = page_of(maker.path)
    assert "Fewer than 10 trials" in page.text("fig-importance")
    if failed:
        assert "no trial has finished yet" in page.text("headline")
        assert f"{failed} non-finite" in page.text("failures")
    if failed > 1:
        assert f"{failed} of {trials} trials failed" in page.text("looks")


def test_a_finished_run_without_control_groups_or_evidence(tmp_path):
    maker = RunMaker(tmp_path / "run", groups=0).begin().search().finish(control=False, seeds=1)
    page = page_of(maker.path)
    assert "95 % interval over the test images, one seed" in page.text("headline")
    assert "This run has no evidence.json" in page.text("fig-classes")
    assert "its head is plain" in page.text("fig-groups")
    maker.evidence(probes=None, swap=None, group_errors=None)
    page = page_of(maker.path)
    assert "The winner has a plain head" in page.text("fig-probes")
    assert "The winner has a plain head" in page.text("fig-errors")
    assert "gull 3" in page.text("classes-table")


def test_evidence_of_an_older_version_or_that_failed(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    maker.evidence(
        calibration=None, map={"error": "no memory left"}, confusion={}, swap={"pairs": 3}
    )
    page = page_of(maker.path)
    assert "older version" in page.text("fig-calibration")
    assert "could not be computed: no memory left" in page.text("fig-map")
    assert "older version" in page.text("fig-confusion")
    assert "lacks group_follows_shared" in page.text("fig-swap")


def test_calibration_is_told_before_and_after_and_what_unknown_costs(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search().finish().evidence()
    page = page_of(maker.path)
    text = page.text("fig-calibration")
    assert "temperature of 1.6, fitted on validation images" in text
    assert "error 0.043 before and 0.021 after, negative log-likelihood 0.9 before and 0.8" in text
    assert "makes the test results worse" not in text
    assert "threshold 0.55, 70.0 % are answered, and 14.0 % of these wrongly" in page.text(
        "fig-risk"
    )
    content = json.loads(maker.run.evidence_file.read_text())
    content["calibration"]["after"]["nll"] = 1.1
    del content["calibration"]["auto"]
    maker.run.evidence_file.write_text(json.dumps(content))
    page = page_of(maker.path)
    assert "makes the test results worse" in page.text("fig-calibration")
    assert "no threshold was chosen on the validation images" in page.text("fig-risk")
    # Of an older version: the numbers as the network gives them, and no curve.
    for key in ("after", "temperature", "risk_coverage"):
        del content["calibration"][key]
    maker.run.evidence_file.write_text(json.dumps(content))
    page = page_of(maker.path)
    assert "error 0.043, negative" in page.text("fig-calibration")
    assert "fig-risk" not in page.ids


def test_damaged_files_are_named_and_the_rest_is_shown(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search().finish().evidence()
    maker.run.evidence_file.write_text('{"per_class')
    maker.run.data_file.write_text("[]")
    maker.run.experiment_file.write_text("name: [")
    page = page_of(maker.path)
    looks = page.text("looks")
    assert "evidence.json: cannot be read" in looks
    assert "data.json: found list" in looks
    assert "experiment.yaml" in looks
    assert page.text("headline").startswith("72.3 %")
    assert "model.dropout" in page.text("all-trials")


def test_many_trials_and_classes_stay_small(tmp_path):
    names = tuple(f"species number {n} of the genus Larus" for n in range(200))
    maker = RunMaker(tmp_path / "run", names=names, groups=20).begin().search(500)
    maker.finish().evidence()
    html = render(read_run(maker.path))
    page = Reader(html)
    assert len(html) < 2_500_000
    assert page.text("trials-table").count("stopped early") > 250
    assert "20 groups" in page.text("fig-groups")
    assert "2 of 20 groups have a contact sheet" in page.text("fig-groups")
    data = json.loads(page.data)
    assert len(data["confusion"]["labels"]) == 200
    assert len(data["confusion"]["edges"]) == 19
    assert sum(count for *_, count in data["confusion"]["cells"]) == 20 * 200


def test_classes_are_ordered_by_group_and_counts_kept(whole):
    data = json.loads(page_of(whole).data)["confusion"]
    assert data["groups"] == sorted(data["groups"])
    assert data["edges"] == [4, 8]
    evidence = json.loads((whole / "evidence.json").read_text())
    position = {name: at for at, name in enumerate(data["labels"])}
    cells = {(row, column): count for row, column, count in data["cells"]}
    matrix = evidence["confusion"]["matrix"]
    for true, name in enumerate(evidence["per_class_accuracy"]):
        for guess, other in enumerate(evidence["per_class_accuracy"]):
            assert cells.get((position[name], position[other]), 0) == matrix[true][guess]


def test_more_classes_than_a_matrix_can_show(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    maker.evidence(confusion=None, confusion_groups=[[8, 1], [2, 9]])
    page = page_of(maker.path)
    assert "too many classes to draw" in page.text("fig-confusion_groups")


def test_a_front_is_drawn_where_there_were_two_objectives(whole, tmp_path):
    assert "fig-pareto" not in page_of(whole).ids
    maker = RunMaker(tmp_path / "run").begin().search().finish()
    content = json.loads(maker.run.results_file.read_text())
    content["pareto"] = [{"trial": 3, "accuracy": 0.7, "latency_ms": 3.1}]
    maker.run.results_file.write_text(json.dumps(content))
    assert "fig-pareto" in page_of(maker.path).ids


def test_the_front_of_a_search_that_goes_on_is_that_of_its_trials(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search(60, latency=True)
    page = page_of(maker.path)
    assert "fig-pareto" in page.ids
    search = json.loads(page.data)["search"]
    trials = {t["n"]: (t["v"], t["l"]) for t in search["trials"] if t["s"] == "COMPLETE"}
    front = {point["trial"] for point in search["pareto"]}
    assert len(front) > 1
    assert front == {
        number
        for number, (value, cost) in trials.items()
        if not any(v >= value and c <= cost and (v, c) != (value, cost) for v, c in trials.values())
    }


def test_a_latency_of_a_busy_machine_has_a_question_mark_in_the_table_and_the_front(tmp_path):
    maker = RunMaker(tmp_path / "run").begin()
    assert "question mark" not in page_of(maker.search(latency=True).path).text("all-trials")
    page = page_of(maker.search(latency=True, busy=2).path)
    text = page.text("all-trials")
    assert "A latency with a question mark is unreliable" in text
    # Trials 3, 6, ..., 27 came to their end; the machine was busy for those with an even number.
    assert len(re.findall(r"\d \?", text)) == 4
    # Spread and load of each.
    said = "parts of the measurement differed by 35 %, other processes used 1.8 cores"
    assert render(read_run(maker.path)).count(f'title="{said}"') == 4
    search = json.loads(page.data)["search"]
    assert {t["n"]: t["u"] for t in search["trials"] if "u" in t} == dict.fromkeys(
        (6, 12, 18, 24), said
    )
    for point in search["pareto"]:
        assert point["latency_reliable"] == bool(point["trial"] % 2)


def test_the_file_is_written_beside_the_run_or_where_wanted(whole, tmp_path):
    assert write_report(whole) == whole / "report.html"
    target = tmp_path / "new" / "page.html"
    assert write_report(whole, target) == target
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
