"""How often the interval of a run misses a known truth, with enough pairs to see tenths of a point.

`benchmarks/coverage.py` compares three intervals on 3,000 pairs a row, which leaves a standard
error of 0.3 to 0.4 points: of 42 rows some look too low or too high by chance. Here the interval of
`results.json` alone meets the same worlds with other random numbers, on more pairs.

    python benchmarks/coverage_simulated.py --pairs 20000     # a quarter of an hour of a core
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from _report import publish, table
from coverage import IMAGES, SEEDS, WORLDS, World
from scipy.stats import t as student

from gsfl_tune.evidence.interval import spread_of

ASKED = (3.0, 7.0)


def main() -> None:
    """Measures every world and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=20_000)
    args = parser.parse_args()
    cells = [(seeds, count) for seeds in SEEDS if seeds > 1 for count in IMAGES]
    rates = {
        world.name: [missed(world, seeds, count, args.pairs) for seeds, count in cells]
        for world in WORLDS
    }
    found = [rate for each in rates.values() for rate in each]
    outside = sum(not ASKED[0] <= rate <= ASKED[1] for rate in found)
    header = ["pairs", *(f"{seeds} seeds, {count} images" for seeds, count in cells)]
    rows = [[name, *(f"{rate:.2f}" for rate in each)] for name, each in rates.items()]
    error = 100 * math.sqrt(0.05 * 0.95 / args.pairs)
    text = (
        "Share of nominal 95 % intervals that miss the true difference, in percent; "
        f"{args.pairs:,} pairs a cell, so the standard error of 5 % is {error:.2f}. "
        f"{ASKED[0]:.0f} to {ASKED[1]:.0f} % is asked for: of {len(found)} cells "
        f"{outside} are outside; the lowest has {min(found):.2f} %, the highest "
        f"{max(found):.2f} %. [coverage.md](coverage.md) says what the rows are.\n\n"
        + table(header, rows)
    )
    publish("coverage_simulated", "The interval of a run against a known truth", text)


def missed(world: World, seeds: int, count: int, pairs: int) -> float:
    """Returns the share of intervals, in percent, that do not hold the true difference."""
    generator = np.random.default_rng(7)
    chunk = max(1, 1_500_000 // (seeds * count))
    wrong = 0
    for start in range(0, pairs, chunk):
        a, b = world.draw(min(chunk, pairs - start), seeds, count, generator)
        spread = spread_of([a, b], [True, not world.fixed])
        gap = a.mean(axis=(1, 2)) - b.mean(axis=(1, 2))
        # As `difference` has it: where no image tells the two apart, Clopper and Pearson.
        half = np.where(
            spread.variance > 0,
            student.ppf(0.975, spread.freedom) * np.sqrt(spread.variance),
            1 - 0.025 ** (1 / count),
        )
        wrong += int((np.abs(gap - world.gain) > half + 1e-12).sum())
    return 100 * wrong / pairs


if __name__ == "__main__":
    main()
