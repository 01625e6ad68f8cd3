"""Conversion of a run's bundle to another format, precision or size, with measurements."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gsfl_tune.activity import activity
from gsfl_tune.bundles import files
from gsfl_tune.bundles.architecture import Architecture
from gsfl_tune.bundles.reading import read_description
from gsfl_tune.cores import usable_cores
from gsfl_tune.experiment.data_config import AugmentConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import measure
from gsfl_tune.export.build import (
    Builder,
    Built,
    Parity,
    compare,
    require_numbers,
    require_parity,
)
from gsfl_tune.export.bundle import load_bundle
from gsfl_tune.export.card_export import export_section, of_another_network
from gsfl_tune.export.images import RunImages
from gsfl_tune.export.measure import Measurement
from gsfl_tune.export.members import about
from gsfl_tune.export.options import Options
from gsfl_tune.export.predictor import Bundle
from gsfl_tune.export.prune import prune
from gsfl_tune.export.readers import reader
from gsfl_tune.export.refine import refine
from gsfl_tune.export.runtimes import Runtime, TorchRuntime
from gsfl_tune.export.thresholds import described
from gsfl_tune.models import Ensemble, Network
from gsfl_tune.run.results import Calibration
from gsfl_tune.training.workspace import resolve_device

Say = Callable[[str], None]

# Peak learning rates of the epochs after pruning and of the epochs with int8 rounding.
_PRUNED_RATE = 5e-4
_QUANTISED_RATE = 5e-5


@dataclass
class _Work:
    """Holds the state of the network during the conversion."""

    bundle: Bundle
    options: Options
    images: RunImages
    builder: Builder
    say: Say
    network: Network | Ensemble
    rows: list[Measurement] = field(default_factory=list)
    refined: dict[str, int] = field(default_factory=dict)

    @property
    def single(self) -> Network:
        """The only network; ensembles are neither pruned nor trained."""
        assert isinstance(self.network, Network)
        return self.network

    def measure(self, name: str, runtime: Runtime, size: int) -> Measurement:
        self.say(f"measuring {name}")
        row = measure.measure(name, runtime, self.images, size, self.options.seconds)
        self.rows.append(row)
        return row

    def train(self, learning_rate: float, *, quantised: bool) -> Network:
        epochs = self.options.epochs
        return refine(
            self.single,
            self.bundle.network,
            self.images,
            AugmentConfig.model_validate(self.bundle.config["data"]["augment"]),
            epochs=epochs,
            learning_rate=learning_rate,
            quantised=quantised,
            device=resolve_device("auto"),
            on_epoch=lambda epoch, loss: self.say(f"  epoch {epoch}/{epochs}  loss {loss:.4f}"),
        )


def convert(
    source: Path,
    out: Path,
    options: Options,
    *,
    say: Say = lambda text: None,
    cache_dir: Path | None = None,
    members: Sequence[Network] = (),
    seeds: Sequence[int] = (),
    calibration: Calibration | None = None,
) -> list[Measurement]:
    """Exports a bundle to another format, precision or size.

    Args:
        source: The bundle.
        out: The directory to write; it appears at once, with everything in it.
        options: The options, already checked.
        say: Receives progress messages.
        cache_dir: Root of the node's caches.
        members: Networks that are exported as an ensemble instead of the bundle's own.
        seeds: Seeds of the members.
        calibration: Calibration of the members; default: the bundle's.

    Returns:
        The measurements, the run's bundle first.

    Raises:
        UserError: If packages or images are missing, the network cannot be exported or pruned, or
            an fp32 file does not compute what PyTorch does.
    """
    options.require()
    bundle = load_bundle(source, device="cpu")
    description = read_description(source)
    if options.flip and not options.flip_anyway:
        _refuse_flip(bundle)
    if calibration is not None:
        description["calibration"] = described(calibration)
    architecture = Architecture.from_json(description["architecture"])
    say("opening the images of the run")
    images = RunImages.open(bundle, options.data, cache_dir)
    threads = options.threads or usable_cores()
    with _threads(threads), tempfile.TemporaryDirectory() as folder:
        network: Network | Ensemble = bundle.network
        together = None
        if options.several:
            network = Ensemble(
                list(members) or [bundle.network], flip=options.mirrored, crops=options.crops
            ).eval()
            together = about(seeds, network)
            together["calibrated"] = bool(description.get("calibration"))
        builder = Builder(options, architecture, images, Path(folder), together)
        work = _Work(bundle, options, images, builder, say, network)
        size = (source / files.MODEL).stat().st_size
        work.measure("PyTorch fp32", TorchRuntime(bundle.network, bundle.preprocessing), size)
        if options.prune:
            _prune(work)
        if options.several and options.format != "safetensors":
            _measure_whole(work)
        built, parity = _build(work)
        info = {
            "format": options.format,
            "precision": options.precision,
            "preprocess": options.preprocess,
            "prune": options.prune,
            **({} if together is None else {"ensemble": together}),
            "input": _input(bundle, options),
            "output": "probabilities" if options.preprocess else "logits",
            "parity": parity.to_json(),
            "refined": work.refined,
            "conditions": measure.conditions(threads),
            "table": [row.to_json() for row in work.rows],
        }
        builder.finish(
            built,
            {
                "name": bundle.config["name"],
                "classes": bundle.classes,
                "groups": bundle.groups,
                "preprocessing": bundle.preprocessing.to_json(),
                "export": info,
                "calibration": description.get("calibration", {}),
            },
        )
        if description.get("calibration") and (words := of_another_network(info)):
            say(words)
        _write(source, out, built, description, info, work.rows)
    return work.rows


def _prune(work: _Work) -> None:
    options = work.options
    work.say(f"removing {100 * options.prune:.0f} % of the channels")
    work.network = prune(work.single, options.prune, work.images.preprocessing.image_size)
    if options.epochs:
        work.say(f"training the pruned network for {options.epochs} epochs")
        work.network = work.train(_PRUNED_RATE, quantised=False)
        work.refined["pruned"] = options.epochs
    if options.format != "safetensors" or options.precision != "fp32":
        _measure_whole(work)


def _measure_whole(work: _Work) -> None:
    """Measures the exported network in PyTorch."""
    size = sum(t.numel() * t.element_size() for t in work.network.inference_state().values())
    runtime = TorchRuntime(work.network, work.images.preprocessing)
    work.measure(f"PyTorch fp32{_suffix(work)}", runtime, size)


def _refuse_flip(bundle: Bundle) -> None:
    if not bundle.config["data"]["augment"]["flip"]:
        raise UserError(
            "--flip: found a run with data.augment.flip: false (mirroring may change its classes, "
            "and it was not trained on mirrored images), allowed with true; "
            "--flip-anyway mirrors anyway"
        )


def _build(work: _Work) -> tuple[Built, Parity]:
    """Builds the file; its measurement is the last row."""
    options, builder = work.options, work.builder
    pruned = _suffix(work)
    name = f"{options.format} {options.precision}{pruned}"
    if options.format == "onnx" and options.precision != "fp32":
        plain = builder.build(work.network, "fp32", "plain.onnx")
        runtime = builder.runtime(plain, "fp32")
        require_parity(compare(runtime, work.network, work.images), options)
        work.measure(f"onnx fp32{pruned}", runtime, plain.bytes)
    work.say(f"writing {name}")
    with activity(f"writing {name}"):
        built = builder.build(work.network, options.precision)
    runtime = builder.runtime(built, options.precision)
    if options.precision == "int8":
        built, runtime = _quantised(work, built, runtime)
    with activity("comparing with PyTorch"):
        parity = compare(runtime, work.network, work.images)
    work.say(
        f"largest difference from PyTorch on {parity.images} validation images: "
        f"{parity.probabilities:.1e} of a probability"
        + ("" if parity.logits is None else f", {parity.logits:.1e} of a logit")
    )
    if options.precision == "fp32":
        require_parity(parity, options)
    require_numbers(parity, options)
    work.measure(name, runtime, built.bytes)
    return built, parity


def _quantised(work: _Work, built: Built, runtime: Runtime) -> tuple[Built, Runtime]:
    """Trains with int8 rounding if needed, and keeps the result if it helps."""
    options, builder = work.options, work.builder
    before = work.rows[-1].validation
    accuracy = work.images.accuracy(runtime, "validation")
    lost = 100 * (before - accuracy)
    if lost <= options.max_loss:
        work.say(f"int8 costs {max(0.0, lost):.2f} points on the validation images")
        return built, runtime
    text = f"int8 costs {lost:.2f} points on the validation images, more than {options.max_loss:g}"
    if not options.epochs:
        work.say(f"{text}; no training because of --epochs 0")
        return built, runtime
    work.say(f"{text}: training {options.epochs} epochs with int8 rounding")
    # Keep the earlier file in case it is the better one.
    kept = built.path.rename(built.path.with_name(f"kept-{built.path.name}"))
    trained = work.train(_QUANTISED_RATE, quantised=True)
    again = builder.build(trained, options.precision)
    second = builder.runtime(again, options.precision)
    found = work.images.accuracy(second, "validation")
    if found <= accuracy:
        work.say("training did not help: keeping the earlier weights")
        kept.replace(built.path)
        return built, runtime
    # The difference of two rows shows the effect of training.
    work.measure("int8 untrained", runtime, kept.stat().st_size)
    work.refined["int8"] = options.epochs
    work.network = trained
    lost = 100 * (before - found)
    verdict = "still above the limit" if lost > options.max_loss else "within the limit"
    work.say(f"after training it costs {max(0.0, lost):.2f} points: {verdict}")
    return again, second


def _suffix(work: _Work) -> str:
    """Returns a short suffix of a row's name, so that the table fits 80 columns."""
    options = work.options
    text = f" -{100 * options.prune:.0f} %" if options.prune else ""
    if isinstance(work.network, Ensemble):
        count = len(work.network.networks)
        text += f" x{count}" if count > 1 else ""
        text += " crops" if work.network.crops else ""
        text += " flip" if work.network.flip else ""
    return text


def _write(
    source: Path,
    out: Path,
    built: Built,
    description: dict[str, Any],
    info: dict[str, Any],
    rows: list[Measurement],
) -> None:
    content = {
        **description,
        "export": info,
        "sha256": {path.name: files.sha256(path.read_bytes()) for path in built.files},
    }
    card = (source / files.CARD).read_text() if (source / files.CARD).is_file() else ""

    program = None
    if info["format"] != "safetensors":
        how = description["preprocessing"]
        program = reader(
            info["format"],
            preprocess=info["preprocess"],
            fit=how["fit"],
            quantised=info["precision"] == "int8",
            ranged=bool(how.get("value_range") or how.get("float_range")),
        )
    calibrated = bool(description.get("calibration"))
    section = export_section(info, rows, program, calibrated=calibrated)

    def fill(folder: Path) -> None:
        for path in built.files:
            shutil.copyfile(path, folder / path.name)
        for name in (files.CLASSES, files.GROUPS, files.METRICS):
            shutil.copyfile(source / name, folder / name)
        (folder / files.CONFIG).write_bytes(files.json_bytes(content))
        (folder / files.CARD).write_text(f"{card.rstrip()}\n\n{section}")

    files.fill_directory(out, fill)


def _input(bundle: Bundle, options: Options) -> str:
    if options.preprocess:
        side = bundle.preprocessing.side
        return f"images: uint8 (batch, {side}, {side}, 3), RGB squares"
    size = bundle.preprocessing.image_size
    return f"images: float32 (batch, 3, {size}, {size}), RGB, (value / 255 - mean) / std"


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
