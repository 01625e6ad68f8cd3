"""What the pages say can be done can be done: commands exist, files are good, programs are real."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path

import pytest

from gsfl_tune.cli import _parser
from gsfl_tune.experiment import Experiment

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
        ROOT / "clusters" / "README.md",
        ROOT / "benchmarks" / "README.md",
    ]
)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a language; those without one for an empty string."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """Lines of a page's blocks that call gsfl-tune, put together where they go on."""
    found = []
    for block in [*blocks(page, ""), *blocks(page, "bash")]:
        for line in block.replace("\\\n", " ").splitlines():
            said = re.match(r"(?:\$ |\.venv/bin/)?gsfl-tune (?P<words>.*)", line.strip())
            if said:
                found.append(said["words"])
    return found


parser = functools.cache(_parser)
LINES = [(page, line) for page in PAGES for line in commands(page)]


@pytest.mark.parametrize(
    ("page", "line"), LINES, ids=[f"{page.stem}: {line[:40]}" for page, line in LINES]
)
def test_commands_exist(page, line, capsys):
    # [...] may be left out; a comment and what a shell does are not the command's.
    words = shlex.split(line.replace("[", " ").replace("]", " "), comments=True)
    for mark in ("|", ">", "&&", ";"):
        if mark in words:
            words = words[: words.index(mark)]
    words = [word.removesuffix("...").partition("|")[0] for word in words]
    try:
        parser().parse_args(words)
    except SystemExit as end:
        said = capsys.readouterr().err
        # RATIO stands for a number.
        if end.code and not re.search(r"invalid .* value: '[A-Z]+'", said):
            pytest.fail(f"{page.name}: gsfl-tune {line}\n{said}")


WHOLE = [
    (page, text)
    for page in PAGES
    for text in blocks(page, "yaml")
    if text.startswith("name:") and "\ndata:" in text
]


@pytest.mark.parametrize(("page", "text"), WHOLE, ids=lambda item: getattr(item, "stem", ""))
def test_whole_files_are_good(page, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in re.findall(r"path: ([\w./-]+)", text):
        Path(path).mkdir(parents=True, exist_ok=True)
    assert len(Experiment.parse(text, file=page.name).space)


def test_programs_on_the_page_of_extensions_are_those_of_the_example():
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    example = ROOT / "examples" / "plugin"
    shown = {*blocks(ROOT / "docs" / "extending.md", "python")}
    files = [path for path in sorted(example.glob("my_plugins/*.py")) if path.stem != "__init__"]
    assert len(files) == 8
    for path in files:
        assert path.read_text(encoding="utf-8") in shown, f"{path.name} differs from the page"
    toml = (example / "pyproject.toml").read_text(encoding="utf-8")
    assert toml in blocks(ROOT / "docs" / "extending.md", "toml")
    assert "pip install ./examples/plugin" in page


# Of programs that are not ours.
FOREIGN = (
    "No module named venv",
    "ensurepip is not available",
    "command not found",
    "No space left on device",
)


def source() -> str:
    """All of the package's text, with strings that go on in the next line put together."""
    files = [*(ROOT / "gsfl_tune").rglob("*.py"), ROOT / "Makefile"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    return re.sub(r"[\"']\s*\n\s*f?[\"']", "", text)


def quoted() -> list[str]:
    rows = re.findall(
        r"^\| ((?:`[^`]+`(?:, )?)+)[^|]*\| [^|]+ \| [^|]* \|$",
        (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    said = [message for row in rows for message in re.findall(r"`([^`]+)`", row)]
    return [message for message in said if not any(word in message for word in FOREIGN)]


def test_there_are_messages_to_look_up():
    assert len(quoted()) > 50


@pytest.fixture(scope="module")
def whole_source() -> str:
    return source()


@pytest.mark.parametrize("message", quoted())
def test_messages_are_those_of_the_code(message, whole_source):
    # What stands for a value is not in the code: words between such must be.
    pieces = re.split(r"\.\.\.|'[^']*'|\S*\d\S*|[()`]", message)
    longest = max((piece.strip(" ;:,") for piece in pieces), key=len)
    assert len(longest) >= 8, f"nothing to look up in {message}"
    assert longest in whole_source, f"the code never says {longest!r}"


QUESTION = re.compile(r"(Is|Are|Does|Do|Can|Who|Which|Whether|What|How|Why|When|Where)\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_headings_name_what_is_under_them(page):
    """Not "Which trial on which GPU", which a reader who looks for GPUs does not find."""
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert [each for each in headings if QUESTION.match(each) or each.endswith("?")] == []


def test_no_page_says_that_a_winner_is_shown_to_be_the_best_there_is():
    """A front page promised "the evidence that it is the best one" of 14 trials."""
    promised = re.compile(
        r"(?:evidence|proof|shows|proves)\s+that\s+(?:it|the\s+winner|this)\s+is\s+the\s+best",
        re.IGNORECASE,
    )
    found = [page for page in PAGES if promised.search(page.read_text(encoding="utf-8"))]
    # That page quotes what was wrong.
    assert [page.name for page in found] == ["silent_faults.md"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "the best configuration that was tried" in readme
