import json
from pathlib import Path

from gsfl_tune.cli import main


def test_prints_the_committed_schema(capsys):
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    committed = Path(__file__).parents[2] / "docs" / "schema.json"
    assert printed == committed.read_text(encoding="utf-8")
    assert json.loads(printed)["title"] == "gsfl-tune experiment"
