"""``gsfl-tune evidence``: the evidence on the winner of a run, computed again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gsfl_tune.cli._base import FAILED, FINISHED, Command, showing


class Evidence(Command):
    """Computes the evidence of a finished run again."""

    name = "evidence"
    help = (
        "compute the evidence of a finished run again (a search does at its end): calibration, "
        "confusions, probes, swap test, Grad-CAM; the exit code is 1 if a part of it failed"
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("run_dir", metavar="RUN", type=Path, help="run directory")
        parser.add_argument("--json", action="store_true", help="print what evidence.json holds")

    def run(self, args: argparse.Namespace) -> int:
        """Computes, writes and prints."""
        with showing("loading PyTorch and the run") as display:
            from gsfl_tune.evidence import recompute_evidence

            content = recompute_evidence(args.run_dir, notice=display.say)
        from gsfl_tune.report.decomposition import print_evidence

        if args.json:
            print(json.dumps(content, indent=2, ensure_ascii=False))
        else:
            print_evidence(content)
            print(f"\nevidence: {args.run_dir / 'evidence.json'}")
            print(f"pictures: {len(content['pictures'])} in {args.run_dir / 'evidence'}")
        # Pictures and the probe of the control have no part of their own.
        return FAILED if content.get("failed") else FINISHED
