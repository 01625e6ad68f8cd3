"""Asks cleanlab which labels are wrong; runs in an environment of its own, not in the project's.

    PYTHON -P benchmarks/_cleanlab.py GIVEN.npz FOUND.npz

`issues.py --cleanlab PYTHON` calls it. GIVEN holds `labels` (N,) and `probabilities` (N, C), out of
fold. FOUND holds the listed positions, the most certain first, under the name of each ranking, and
`version`. Neither file needs pickle.
"""

from __future__ import annotations

import sys

import numpy as np

RANKINGS = ("self_confidence", "normalized_margin")


def main() -> None:
    # Not above: the environment of the project does not have it.
    import cleanlab
    from cleanlab.filter import find_label_issues

    given, target = sys.argv[1:]
    with np.load(given, allow_pickle=False) as arrays:
        labels, probabilities = arrays["labels"], arrays["probabilities"]
    found = {
        ranking: find_label_issues(
            labels, probabilities, return_indices_ranked_by=ranking, n_jobs=1
        )
        for ranking in RANKINGS
    }
    np.savez(target, version=np.array(cleanlab.__version__), **found)


if __name__ == "__main__":
    main()
