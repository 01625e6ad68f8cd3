"""How often the interval of a difference errs: with a known truth, and on real features.

    python benchmarks/coverage.py [--data grocery clothing] [--replicates 3000] [--pairs 6000]

Simulated: every image has a difficulty, every seed an effect on all images and one on each image;
a model is right where their sum is positive, so that the true accuracies are known. Real: a head of
the kind that a search trains, on frozen EfficientNet-Lite0 features, the same configuration twice
with different seeds on many random splits; whatever the pair shows, its true difference is 0.
The rows against the linear probe fit that of the project on every split.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _intervals import METHODS, Missed, Table, errors
from _report import publish, table
from glue_space import experiment, real_data
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from gsfl_tune.evidence.interval import _KNOWN, _MANY
from gsfl_tune.evidence.linear_probe import tune_probe
from gsfl_tune.training import Workspace

SEEDS = (1, 3, 5)
IMAGES = (136, 372, 2485)
BATCH, TRAINED_ON = 64, 800
# Of these, what the strength of the linear probe is chosen on.
VALIDATED_ON = 160

# --- a known truth ------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """Accuracies and what moves them, on the scale of a normal deviate.

    Attributes:
        name: What a reader calls it.
        accuracy: Of the first model, over all images and seeds.
        gain: Of the first over the second.
        images: Deviation of the difficulty of an image.
        alike: Correlation of an image's difficulty for the two; 1: one configuration.
        seed: Deviation of a seed's effect on all images.
        each: Deviation of a seed's effect on one image.
        fixed: Whether the second model is one and the same whatever the seed, such as a linear
            probe.
    """

    name: str
    accuracy: float = 0.88
    gain: float = 0.0
    images: float = 2.0
    alike: float = 1.0
    seed: float = 0.0
    each: float = 0.7
    fixed: bool = False

    def draw(
        self, replicates: int, seeds: int, count: int, generator: np.random.Generator
    ) -> tuple[Table, Table]:
        """Tables (R, S, N) of both models."""
        common = generator.normal(size=(replicates, 1, count))
        found = []
        for number, accuracy in enumerate((self.accuracy, self.accuracy - self.gain)):
            moves = 0.0 if number and self.fixed else 1.0
            trained = 1 if number and self.fixed else seeds
            spread = math.sqrt(self.images**2 + moves * (self.seed**2 + self.each**2))
            own = generator.normal(size=(replicates, 1, count))
            ease = self.images * (math.sqrt(self.alike) * common + math.sqrt(1 - self.alike) * own)
            moved = moves * self.seed * generator.normal(size=(replicates, trained, 1))
            noise = (moves * self.each) * generator.standard_normal(
                (replicates, trained, count), dtype=np.float32
            )
            found.append((norm.ppf(accuracy) * spread + ease + moved + noise > 0).astype(float))
        return found[0], found[1]


WORLDS = (
    World("the same twice, seeds move single images"),
    World("the same twice, seeds move everything a little", seed=0.05),
    World("the same twice, seeds move everything", seed=0.2),
    World("two kinds, equally good", alike=0.7, seed=0.05),
    World("two kinds, 3 points apart", alike=0.7, seed=0.05, gain=0.03),
    World("against a model without seed, equally good", alike=0.7, seed=0.05, fixed=True),
    World("against a model without seed, 3 points", alike=0.7, seed=0.05, gain=0.03, fixed=True),
)


def simulated(replicates: int) -> list[list[str]]:
    """One row for every world, number of seeds and number of images."""
    rows = []
    for world in WORLDS:
        for seeds in SEEDS:
            for count in IMAGES:
                chunk = max(1, min(replicates, 1_500_000 // (seeds * count)))
                generator = np.random.default_rng(1)
                pairs = (
                    world.draw(min(chunk, replicates - start), seeds, count, generator)
                    for start in range(0, replicates, chunk)
                )
                found = errors(pairs, world.gain, fixed=world.fixed)
                rows.append([world.name, *_cells(seeds, count, found)])
    return rows


# --- real features ------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A configuration of the head: a hidden layer with dropout, and a classifier."""

    hidden: int = 32
    dropout: float = 0.3
    scale: float = 12.0
    rate: float = 4e-3
    epochs: int = 10


def trained(
    kind: Kind, features: Tensor, labels: Tensor, tested: Tensor, seeds: int, seed: int
) -> NDArray[np.int64]:
    """What heads of many seeds, trained side by side, say of other images, (seeds, N).

    Args:
        kind: Their configuration.
        features: (M, D) of the training images.
        labels: (M,) classes.
        tested: (N, D) of the other images.
        seeds: How many.
        seed: Of all that they draw.
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn(before: int, after: int) -> Tensor:
        bound = before**-0.5
        part = torch.rand(seeds, before, after, generator=generator) * 2 * bound - bound
        return part.requires_grad_()

    parts = [drawn(features.shape[1], kind.hidden), drawn(kind.hidden, int(labels.max()) + 1)]
    steps = kind.epochs * math.ceil(len(features) / BATCH)
    optimizer = torch.optim.AdamW(parts, lr=kind.rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, kind.rate, total_steps=steps)
    for _ in range(kind.epochs):
        order = torch.rand(seeds, len(features), generator=generator).argsort(dim=1)
        for rows in order.split(BATCH, dim=1):
            latent = (kind.scale * features[rows] @ parts[0]).relu()
            kept = torch.rand(latent.shape, generator=generator) >= kind.dropout
            logits = (latent * kept / (1 - kind.dropout)) @ parts[1]
            wrong = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels[rows].flatten(), reduction="sum"
            )
            optimizer.zero_grad()
            (wrong / rows.shape[1]).backward()
            optimizer.step()
            schedule.step()
    said = []
    with torch.no_grad():
        for number in range(seeds):
            latent = (kind.scale * tested @ parts[0][number]).relu()
            said.append((latent @ parts[1][number]).argmax(dim=1))
    return np.asarray(torch.stack(said).numpy())


def tables(name: str, kinds: list[Kind], splits: int, seeds: int) -> Iterator[list[Table]]:
    """For every split, whether each kind's seeds were right about the images kept aside.

    Yields:
        One (seeds, N) table a kind.
    """
    features, labels = cached(name)
    for split, (train, test) in enumerate(parts_of(len(labels), splits)):
        truth = labels[test].numpy()
        yield [
            (
                trained(kind, features[train], labels[train], features[test], seeds, 97 * split + k)
                == truth
            ).astype(np.float64)
            for k, kind in enumerate(kinds)
        ]


def probed(name: str, splits: int) -> Iterator[Table]:
    """For every split, whether the linear probe of the project is right, (1, N) tables.

    As at the end of a search: the strength is chosen on a part of the training images, and the
    probe is fitted again on all of them.
    """
    features, labels = (each.numpy() for each in cached(name))
    for train, test in parts_of(len(labels), splits):
        fitted, validated = train[VALIDATED_ON:], train[:VALIDATED_ON]
        probe = tune_probe(
            features[fitted],
            labels[fitted],
            features[validated],
            labels[validated],
            class_count=int(labels.max()) + 1,
        ).probe
        said = probe.logits(features[test]).argmax(axis=1)
        yield (said == labels[test]).astype(np.float64)[None]


def parts_of(count: int, splits: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields training and test images of every split; always the same ones."""
    generator = np.random.default_rng(0)
    for _ in range(splits):
        order = generator.permutation(count)
        yield order[:TRAINED_ON], order[TRAINED_ON:]


def cached(name: str) -> tuple[Tensor, Tensor]:
    """Frozen features of all images of a data set, and their classes."""
    root = real_data()
    if root is None or not (root / name).is_dir():
        raise SystemExit(f"--data {name}: GSFL_TUNE_REAL_DATA names no folder that has {name}/")
    # Not grocery's pictures of products, which are no photographs.
    data = {"source": "parquet", "path": str(root / name / "[tv]*.parquet"), "image_size": 224}
    config = experiment(name, data, epochs=1).defaults()
    workspace = Workspace.open(config.data)
    parts = [workspace.features(config, part).float() for part in ("pool", "test")]
    dataset = workspace.dataset
    labels = np.concatenate([dataset.pool.labels, dataset.test.labels])
    return torch.cat(parts), torch.from_numpy(labels.astype(np.int64))


def drawn_pairs(
    right: Sequence[Table] | Table,
    seeds: int,
    count: int,
    pairs: int,
    generator: np.random.Generator,
) -> tuple[Table, Table]:
    """Pairs (R, S, N): seeds of either side drawn without a common one, images without a repeat."""
    own, other = right[0], right[-1]
    first, second = [], []
    for _ in range(pairs):
        images = generator.permutation(own.shape[1])[:count]
        chosen = generator.permutation(len(own))[: 2 * seeds]
        first.append(own[chosen[:seeds]][:, images])
        rest = chosen[seeds:] if len(other) > 1 else [0]
        second.append(other[rest][:, images])
    return np.stack(first), np.stack(second)


def real(name: str, splits: int, pairs: int, keep: Path | None) -> list[list[str]]:
    """Rows for the same configuration twice, for two kinds, and for one against a linear probe."""
    kinds = [Kind(), Kind(hidden=96, dropout=0.0, scale=30.0, rate=1e-3)]
    found = _kept(
        keep, f"coverage-{name}-{splits}", lambda: map(np.stack, tables(name, kinds, splits, 30))
    )
    probes = _kept(keep, f"coverage-{name}-{splits}-probe", lambda: probed(name, splits))
    rows = []
    for seeds in SEEDS:
        for count in IMAGES:
            generator = np.random.default_rng(2)
            drawn = (
                drawn_pairs(each[:1], seeds, count, max(1, pairs // splits), generator)
                for each in found
            )
            title = f"{name}: the same twice"
            missed = errors(drawn, 0.0, chunks_differ=True)
            rows.append([title, *_cells(seeds, count, missed)])
    for seeds in SEEDS:
        # Of more images there are too few others to call all of them the truth.
        for count in IMAGES[:2]:
            rows.append([f"{name}: two kinds", *_two_kinds(found, seeds, count, splits, pairs)])
    for seeds in SEEDS:
        for count in IMAGES[:2]:
            fixed = [[each[0], probe] for each, probe in zip(found, probes, strict=True)]
            cells = _two_kinds(fixed, seeds, count, splits, pairs, fixed=True)
            rows.append([f"{name}: winner minus linear probe", *cells])
    return rows


def _two_kinds(
    found: Sequence[Sequence[Table] | Table],
    seeds: int,
    count: int,
    splits: int,
    pairs: int,
    *,
    fixed: bool = False,
) -> list[str]:
    """The truth of a split is the difference over all of its seeds and images."""
    generator = np.random.default_rng(3)

    def moved() -> Iterator[tuple[Table, Table]]:
        for each in found:
            a, b = drawn_pairs(each, seeds, count, max(1, pairs // splits), generator)
            # Moves the truth to 0 without a change of any variance.
            yield a - (each[0].mean() - each[1].mean()), b

    return _cells(seeds, count, errors(moved(), 0.0, fixed=fixed, chunks_differ=True))


def _kept(folder: Path | None, name: str, make: Callable[[], Iterable[Table]]) -> list[Table]:
    """Reads what models said from a folder, or makes it and keeps it there."""
    file = None if folder is None else folder / f"{name}.npy"
    if file is not None and file.is_file():
        return [each.astype(np.float64) for each in np.load(file)]
    made = list(make())
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, np.stack(made).astype(bool))
    return made


def _cells(seeds: int, count: int, missed: Missed) -> list[str]:
    shown = [f"{missed.rate(name):.1f} ± {missed.error(name):.1f}" for name in METHODS]
    return [str(seeds), str(count), *shown, f"{missed.width:.1f}"]


def _by_seeds(rows: list[list[str]]) -> tuple[str, str]:
    """The table of several seeds, and that of one."""
    several, one = ([row for row in rows if (row[1] == "1") == alone] for alone in (False, True))
    return table(HEADER, several), table(HEADER, one)


# --- the page -----------------------------------------------------------------------------

HEADER = ("pairs", "seeds", "images", *(f"{name}, %" for name in METHODS), "width of this, points")

TEXT = """\
Share of nominal 95 % intervals that do not contain the true difference: 5 % is right, 3 to 7 %
is asked for. *This* is the interval of `results.json` (`gsfl_tune/evidence/interval.py`, with
`_KNOWN` {known} and `_MANY` {many}). After ± comes the standard error of a share: over pairs where
the truth is known, over splits for real features, as the pairs of a split have heads and images
in common.

## A known truth

{replicates} pairs a row.

{simulated_several}

## Real features

Heads on frozen EfficientNet-Lite0 features (224 px); {splits} random splits of a data set,
{trained} images to train on, the others to test; 30 seeds of a configuration, from which sides
and images are drawn. The same configuration twice has a true difference of 0 whatever the pair
shows. Of two kinds (a hidden layer of 32 with dropout, one of 96 without) the truth is the
difference over all 30 seeds and all images of the split. The linear probe is that of a run: a
logistic regression on the same features, its strength chosen on {validated} of the training
images, fitted again on all of them. The winner has the hidden layer of 32.

{real_several}

## One seed a side

The interval covers images alone, and says so: what a seed does to all images alike cannot be seen
in one. A run with one seed never says that one model is better than another.

{simulated_one}

{real_one}
"""


def main() -> None:
    """Runs both parts and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", default=["grocery", "clothing"])
    parser.add_argument("--replicates", type=int, default=3000, help="simulated pairs a row")
    parser.add_argument("--pairs", type=int, default=6000, help="pairs of real heads a row")
    parser.add_argument("--splits", type=int, default=24)
    parser.add_argument("--keep", type=Path, help="folder for what trained heads said, to go on")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = _by_seeds(simulated(args.replicates))
    measured = [row for name in args.data for row in real(name, args.splits, args.pairs, args.keep)]
    several, one = _by_seeds(measured) if measured else ("Not measured.", "")
    text = TEXT.format(
        known=_KNOWN,
        many=_MANY,
        replicates=f"{args.replicates:,}",
        simulated_several=known[0],
        simulated_one=known[1],
        real_several=several,
        real_one=one,
        splits=args.splits,
        trained=TRAINED_ON,
        validated=VALIDATED_ON,
    )
    publish("coverage", "How often the interval of a difference errs", text, save=not args.no_save)


if __name__ == "__main__":
    main()
