"""Every sign of a problem on a page is tested by the program, or left to the reader by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from jinja2 import nodes

from gsfl_tune.report.files import read_run
from gsfl_tune.report.page import environment, render
from gsfl_tune.run.results import Finding
from tests.report.runs import RunMaker

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "gsfl_tune/report/templates"
# Position of a macro's first sign among its arguments.
MACROS = {"bad": 0, "chart": 4}
ARGUMENTS = ("signs", "findings", "judge")


@dataclass(frozen=True)
class Sign:
    """What a template says would be bad."""

    template: str
    line: int
    signs: bool
    findings: tuple[str, ...]
    judge: bool


def signs_of(template: str) -> list[Sign]:
    """The signs of a template; calls inside of macros pass on what a template says."""
    tree = environment().parse((TEMPLATES / template).read_text(encoding="utf-8"))
    inner = {
        id(call) for macro in tree.find_all(nodes.Macro) for call in macro.find_all(nodes.Call)
    }
    found = []
    for call in tree.find_all(nodes.Call):
        name = call.node.name if isinstance(call.node, nodes.Name) else ""
        if name not in MACROS or id(call) in inner:
            continue
        given = dict(zip(ARGUMENTS, call.args[MACROS[name] :], strict=False))
        given |= {each.key: each.value for each in call.kwargs}
        codes = given.get("findings", nodes.Const("")).as_const()
        known = ("signs" in given, tuple(codes.split()), "judge" in given)
        found.append(Sign(template, call.lineno, *known))
    return found


SIGNS = [sign for file in sorted(TEMPLATES.glob("*.html")) for sign in signs_of(file.name)]


def test_no_sign_is_written_past_the_macro():
    whole = {file.name: file.read_text(encoding="utf-8") for file in TEMPLATES.glob("*.html")}
    assert [name for name, text in whole.items() if "Signs of a problem" in text] == ["parts.html"]
    assert whole["parts.html"].count("Signs of a problem") == 1
    assert len(SIGNS) > 25


@pytest.mark.parametrize("sign", SIGNS, ids=[f"{each.template}:{each.line}" for each in SIGNS])
def test_a_sign_is_tested_by_the_program_or_left_to_the_reader(sign):
    page = (ROOT / "docs/evidence.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*) \| (?:severe|warning|note)", page, re.MULTILINE)
    known = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}
    assert sign.signs or sign.judge
    assert bool(sign.findings) == sign.signs
    assert set(sign.findings) <= known


def test_a_sign_that_holds_leads_to_its_finding(tmp_path):
    found = [Finding("curves_fall_again", "note", {}, "6 of 8 finished trials were better before.")]
    maker = RunMaker(tmp_path / "run").begin().search().finish(findings=found).evidence()
    page = render(read_run(maker.path))
    linked = re.findall(
        r'data-findings="([^"]*)"><b>Signs of a problem:</b>[^<]*<a href="#findings">', page
    )
    assert linked == ["curves_fall_again curves_still_rise curves_cross_late"]
    assert 'id="findings"' in page
    plain = render(read_run(RunMaker(tmp_path / "other").begin().search().finish().path))
    assert 'href="#findings"' not in plain
