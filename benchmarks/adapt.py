"""Adaptation without labels to images of another domain: accuracy before and after.

A network is trained on photographs (clothing; without them on rendered text), 30 images of each
class at 64 px, and the last two blocks are fine-tuned. Then images that it has not seen are
changed: blurred, made grey or noisy. `gsfl-tune adapt` sees one half of them without labels, the
other half judges it. Each seed has its own training and adaptation. The column "norms" is what new
statistics of batch norms alone give, those of the same blocks: the usual cheap way. What was
measured once stays in ``results/adapt.jsonl``.

    python benchmarks/adapt.py        # four minutes on two cores
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _photos import write_folder
from _report import RESULTS, publish, table
from glue_space import real_data
from PIL import Image, ImageFilter

from gsfl_tune.adaptation import adapt
from gsfl_tune.data import center_crop, prepare
from gsfl_tune.data.labelled_images import open_for_evaluation
from gsfl_tune.evidence.interval import difference
from gsfl_tune.experiment.config import Config
from gsfl_tune.export import Bundle, bundle_from_network, load_bundle
from gsfl_tune.training import Training, Workspace
from gsfl_tune.training.batch_norm import fresh_statistics

SIZE, SIDE = 64, 74
LOG = RESULTS / "adapt.jsonl"
BLOCKS = 2
TARGET = 2.0  # points that every shift should gain
Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def levels(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Change:
    def changed(image: Image.Image, random: np.random.Generator) -> Image.Image:
        values = change(np.asarray(image, np.float32), random)
        return Image.fromarray(values.clip(0, 255).astype(np.uint8))

    return changed


SHIFTS: dict[str, Change] = {
    "nothing": lambda image, random: image,
    "blur, radius 1.5": lambda image, random: image.filter(ImageFilter.GaussianBlur(1.5)),
    "grey, half the contrast": lambda image, random: levels(lambda x, _: 64 + 0.5 * x)(
        image.convert("L").convert("RGB"), random
    ),
    "noise, deviation 40": levels(lambda x, random: x + random.normal(0, 40, x.shape)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke run that writes nothing")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--shifts", nargs="*", default=list(SHIFTS), choices=list(SHIFTS))
    parser.add_argument("--page", action="store_true", help="measure nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    name = "clothing" if real_data() is not None and not args.quick else "typefaces"
    if args.quick:
        args.seeds, args.epochs, args.shifts = 1, 1, args.shifts[:1]
    known = [] if args.quick else read_log()
    if not args.page:
        with tempfile.TemporaryDirectory() as folder:
            known += measure(name, args, Path(folder), known)
    publish("adapt", "Adaptation without labels", page(known), save=not args.quick)


def read_log() -> list[dict[str, Any]]:
    return [json.loads(line) for line in LOG.read_text().splitlines()] if LOG.exists() else []


def measure(
    name: str, args: argparse.Namespace, home: Path, known: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Measures what is not in the log yet; a row for each shift and seed."""
    halves = write_shifted(name, home, args.shifts, args.quick)
    done = {(row["data"], row["shift"], row["seed"], row["epochs"]) for row in known}
    rows = []
    for seed in range(args.seeds):
        left = [each for each in args.shifts if (name, each, seed, args.epochs) not in done]
        source = train(name, home / f"source {seed}", seed, args.quick) if left else None
        for shift in left:
            assert source is not None
            seen, judge = halves[shift]
            out = home / f"{shift} {seed}"
            found = adapt(
                source, seen, out, seed=seed, epochs=args.epochs,
                batch_size=8 if args.quick else 32, blocks=BLOCKS, device="cpu",
                cache_dir=home / "cache",
            )  # fmt: skip
            bundles = {
                "before": load_bundle(source, "cpu"),
                "norms": renewed(source, seen, home),
                "after": load_bundle(out, "cpu"),
            }
            right = {way: answers(bundle, judge, home) for way, bundle in bundles.items()}
            facts = {"data": name, "shift": shift, "seed": seed, "epochs": args.epochs}
            new = {"new_norms": found.records[0]["new_norms"]}
            texts = {way: "".join(map(str, each.astype(int))) for way, each in right.items()}
            rows.append({**facts, **new, **texts})
            if not args.quick:
                with LOG.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
            shares = ", ".join(f"{way} {each.mean():.3f}" for way, each in right.items())
            print(f"{name}, {shift}, seed {seed}: {shares}", flush=True)
    return rows


def page(rows: list[dict[str, Any]]) -> str:
    """A row for each shift, over its seeds."""
    cells = []
    for key in dict.fromkeys((row["data"], row["shift"], row["epochs"]) for row in rows):
        own = [row for row in rows if (row["data"], row["shift"], row["epochs"]) == key]
        right = {
            way: np.array([[int(each) for each in row[way]] for row in own], float)
            for way in ("before", "norms", "after")
        }
        gain = difference(right["after"], right["before"])
        points, low, high = (100 * x for x in (gain.mean, gain.interval.low, gain.interval.high))
        if key[1] == "nothing":
            verdict = "missed" if points < 0 else "reached"
        else:
            verdict = "reached" if points >= TARGET else "missed"
            verdict += ", not certain" if gain.interval.contains_zero else ""
        means = [f"{100 * each.mean():.1f} %" for each in right.values()]
        new = f"{sum(row['new_norms'] for row in own)} of {len(own)}"
        head = [key[0], key[1], str(key[2]), str(len(own)), *means, new]
        cells.append([*head, f"{points:+.1f}", f"{low:+.1f} to {high:+.1f}", verdict])
    note = (
        f"EfficientNet-Lite0 at {SIZE} px, {len(rows[0]['before'])} held-out images of the same "
        "shift, mean over the seeds; as many others are adapted to. Norms: only the statistics of "
        "the trained blocks' batch norms are found anew. Chosen: how often the adaptation took new "
        f"ones. Gain: after minus before, interval over seeds and images. Target: {TARGET:g} "
        "points wherever there is a shift, and no loss without one."
    )
    header = ["data", "shift", "epochs", "seeds", "before", "norms", "after", "chosen"]
    return f"{note}\n\n{table([*header, 'gain, points', '95 %', 'verdict'], cells)}"


def train(name: str, directory: Path, seed: int, quick: bool) -> Path:
    """Trains a bundle on some images of each class."""
    content: dict[str, Any] = {
        "name": name,
        "data": {**data_of(name, directory.parent), "image_size": SIZE},
        "model": {
            "backbone": "tf_efficientnet_lite0",
            "weights": "package",
            "latent_dim": 128,
            "groups": {"count": 4},
        },
        "training": {
            "device": "cpu",
            "head": {"epochs": 15, "batch_size": 32, "learning_rate": 3e-3},
            "finetune": {"epochs": 0 if quick else 3, "blocks": BLOCKS, "learning_rate": 1e-3},
        },
    }
    config = Config.model_validate(content)
    workspace = Workspace.open(config.data, side=SIDE, cache_dir=directory.parent / "cache")
    training = Training(config, workspace, directory, seed=seed)
    while not training.finished:
        training.run_epoch()
    return bundle_from_network(
        directory / "bundle",
        training.trained_network(),
        config,
        classes=workspace.dataset.classes,
        groups=None,
        side=SIDE,
        metrics={},
    )


def data_of(name: str, home: Path) -> dict[str, Any]:
    if name == "typefaces":
        return {"source": "typefaces", "typefaces": {"train": 15, "test": 2, "size": SIDE}}
    folder = write_folder(name, home / "photos")
    return {"source": "folder", "path": str(folder), "shots": 30}


def write_shifted(
    name: str, home: Path, shifts: list[str], quick: bool
) -> dict[str, tuple[Path, Path]]:
    """Writes images that no training sees, once for each shift: those to adapt to, and a judge."""
    data = data_of(name, home)
    if name == "typefaces":
        data["typefaces"] = {"train": 15, "test": 2 if quick else 24, "size": SIDE, "seed": 7}
    dataset = prepare(
        Config.model_validate({"name": name, "data": {**data, "image_size": SIZE}}).data,
        side=SIDE,
        cache_dir=home / "cache",
        parts=("test",),
    )
    images, found = dataset.test, {}
    for shift in shifts:
        random = np.random.default_rng(0)
        folders = home / "shifted" / shift / "seen", home / "shifted" / shift / "judge"
        for place, label in enumerate(images.labels.tolist()):
            square = Image.fromarray(images.gather(np.array([place]))[0])
            folder = folders[place % 2] / dataset.classes[label].replace("/", "_")
            folder.mkdir(parents=True, exist_ok=True)
            SHIFTS[shift](square, random).save(folder / f"{place}.png")
        found[shift] = folders
    return found


def answers(bundle: Bundle, judge: Path, home: Path) -> np.ndarray:
    """Returns for each judging image whether a bundle is right, (N,) float."""
    data = open_for_evaluation(judge, SIDE, bundle.preprocessing.fit, home / "cache")
    names = [each.replace("/", "_") for each in bundle.classes]
    labels = np.array([names.index(each) for each in data.classes])[data.images.labels]
    return (bundle.logits(data.images).argmax(axis=1) == labels).astype(float)


def renewed(source: Path, seen: Path, home: Path) -> Bundle:
    """A bundle whose batch norms have statistics of the images to adapt to."""
    bundle = load_bundle(source, "cpu")
    how, network = bundle.preprocessing, copy.deepcopy(bundle.network)
    images = open_for_evaluation(seen, SIDE, how.fit, home / "cache").images
    order = np.random.default_rng(0).permutation(len(images))
    network.backbone.train_last(BLOCKS)
    network.train()
    with fresh_statistics(network), torch.no_grad():
        for places in np.array_split(order, max(1, len(order) // 64)):
            squares = torch.from_numpy(images.gather(places))
            network.features(center_crop(squares, how.image_size, how.mean, how.std))
    bundle.network.load_state_dict(network.eval().state_dict())
    return bundle


if __name__ == "__main__":
    main()
