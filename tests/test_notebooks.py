"""The notebooks of `examples/` run, and say what they are stored with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def told(notebook) -> list[str]:
    """What the cells print or return as text; figures and tables are only there or not."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if output.output_type == "stream" and output.name == "stdout":
                found.append(output.text)
            elif "image/png" in data:
                found.append("a figure")
            elif "text/html" in data and "dataframe" in data["text/html"]:
                found.append("a table")
            elif "text/plain" in data:
                found.append(data["text/plain"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["read_a_run", "compare_runs"])
def test_a_notebook_runs_and_says_what_it_is_stored_with(name, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    # Files of the kernel's connection; it listens to this machine alone.
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    file = EXAMPLES / f"{name}.ipynb"
    stored, notebook = nbformat.read(file, 4), nbformat.read(file, 4)
    nbformat.validate(stored)
    for cell in notebook.cells:
        cell.pop("outputs", None)
        if cell.cell_type == "code":
            cell.outputs = []
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}
    )
    client.execute()
    assert told(notebook) == told(stored)
    assert all(cell.outputs for cell in stored.cells if cell.cell_type == "code")


def test_they_are_small_and_name_no_machine():
    files = sorted(EXAMPLES.glob("*.ipynb"))
    assert [file.stem for file in files] == ["compare_runs", "read_a_run"]
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert len(text) < 200_000
        assert "Traceback" not in text
        # Absolute paths of two folders and more; links, closing tags and pictures are none.
        words = re.sub(r'"image/png": "[^"]*"', "", text)
        assert re.findall(r"(?<![\w:/.<])/(?:[\w-]+/)+[\w-]+", words) == []
