import json
import subprocess
import sys
from pathlib import Path


def test_prints_the_committed_schema():
    command = [sys.executable, "-m", "gsfl_tune", "schema"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    committed = Path(__file__).parents[2] / "docs" / "schema.json"
    assert printed == committed.read_text(encoding="utf-8")
    assert json.loads(printed)["title"] == "gsfl-tune experiment"
