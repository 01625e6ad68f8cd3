"""The first line of a public docstring begins with a verb, so that it reads as a sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "gsfl_tune"
# Sections of the schema describe a mapping of the file, exceptions and hooks say when.
SECTIONS = re.compile(r"(Config|Section|MetricOfPackage)$")
PASSIVE = ("Raised", "Called")
# Words that a docstring may begin with. An ending alone does not tell a verb from a noun: "Paths of
# all images" would pass. A new verb is added here.
VERBS = """
Accepts Accesses Adapts Adds Answers Appends Applies Asks Assigns Averages Begins Blurs Bounds
Breaks Brings Builds Calibrates Calls Captures Changes Checks Chooses Classifies Closes Clusters
Collects Combines Compares Complains Completes Computes Connects Continues Converts Convolves Copies
Correlates Counts Creates Cuts Decides Declares Decodes Defines Deletes Describes Divides Does
Downloads Draws Embeds Encodes Ends Enforces Enlarges Enqueues Erases Estimates Evaluates Evicts
Expands Explains Exports Feeds Fills Finds Fits Flattens Formats Frees Freezes Gives Groups Handles
Hands Holds Identifies Imports Inspects Inverts Joins Judges Keeps Kills Labels Lays Learns
Leaves Lets Limits Listens Lists Loads Locates Locks Logs Looks Makes Maps Marks Measures Merges
Mixes Models Moves Names Normalises Notes Observes Opens Orders Pairs Parses Passes Pastes Plans
Pools Predicts Prepares Presents Prices Prints Probes Projects Proposes Publishes Puts Quantises
Raises Reads Receives Records Redraws Refuses Registers Releases Remembers Removes Renames Renders
Renumbers Replaces Reports Requests Reserves Resizes Restores Retrains Returns Reverts Rounds Runs
Saves Says Scales Scores Searches Selects Sends Serves Sets Shares Shows Shrinks Signals Splits
Starts Stays Stops Stores Subtracts Summarises Sums Swaps Switches Tabulates Takes Tells Times
Trains Treats Tries Turns Updates Uploads Uses Waits Walks Watches Weights Works Wraps Writes Yields
Zeroes
"""


def _documented(node: ast.AST, public: bool = True) -> Iterator[tuple[str, int, str]]:
    for child in getattr(node, "body", ()):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        own = public and not child.name.startswith("_")
        text = ast.get_docstring(child)
        if own and text:
            yield child.name, child.lineno, text.splitlines()[0]
        if isinstance(child, ast.ClassDef):
            yield from _documented(child, own)


@pytest.mark.parametrize("room", sorted({p.parent for p in PACKAGE.rglob("*.py")}), ids=str)
def test_a_public_docstring_begins_with_a_verb(room: Path):
    others = []
    for file in sorted(room.glob("*.py")):
        for name, line, first in _documented(ast.parse(file.read_text())):
            word = first.split()[0].rstrip(":,.;")
            if word not in VERBS.split() and word not in PASSIVE and not SECTIONS.search(name):
                others.append(f"{file.name}:{line} {name}: {first}")
    assert others == []
