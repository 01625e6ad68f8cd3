"""Export of a run's winner, and the tensors that only the evidence needs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from gsfl_tune.bundles import files
from gsfl_tune.bundles.architecture import shared_tensors
from gsfl_tune.bundles.reading import read_description
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export.bundle import load_bundle
from gsfl_tune.export.card import better_than
from gsfl_tune.export.hub import fetch, hub_place
from gsfl_tune.export.images import RunImages
from gsfl_tune.export.neighbour_tensors import neighbour_tensors
from gsfl_tune.export.options import Options
from gsfl_tune.run.layout import RunDirectory
from gsfl_tune.run.results import read_results
from gsfl_tune.run.verdict import TITLES, ahead, best_on_validation, validated

if TYPE_CHECKING:
    from gsfl_tune.losses import ClassCenters
    from gsfl_tune.models import Network


def write_best_training(
    directory: str | Path, network: Network, centers: ClassCenters | None
) -> Path | None:
    """Writes what the bundle leaves out: shared encoder, decoder and class centres.

    Args:
        directory: ``RUN/best-training``; an earlier one is replaced, or removed.
        network: The network that the bundle was written from.
        centers: Its class centres.

    Returns:
        The directory, or None for a plain head, which has no such tensors.
    """
    tensors: dict[str, Tensor] = shared_tensors(network)
    if centers is not None:
        tensors |= {f"centers.{name}": tensor for name, tensor in centers.state_dict().items()}
    directory = Path(directory)
    if not tensors:
        # That of an earlier winner would pass for this one's.
        shutil.rmtree(directory, ignore_errors=True)
        return None
    data = files.tensor_bytes(tensors)

    def fill(folder: Path) -> None:
        (folder / files.SHARED).write_bytes(data)
        (folder / "sha256.json").write_bytes(files.json_bytes({files.SHARED: files.sha256(data)}))

    files.replace_directory(directory, fill)
    return directory


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    with_shared: bool = False,
    options: Options | None = None,
    pick: float | None = None,
    best_of_all: bool = False,
    without_validation: bool = False,
    neighbours: int | None = None,
    say: Callable[[str], None] = lambda text: None,
    cache_dir: Path | None = None,
) -> Path:
    """Exports the winner of a finished run, or another trial of its Pareto front.

    As safetensors in fp32 the export is a copy of the run's bundle, after a check that it loads.
    Everything else is converted and measured, see `gsfl_tune.export.convert`.

    Args:
        run: The run directory; or a bundle, such as one that was adapted, or one of the hub.
        out: The directory to write; it must be missing or empty.
        with_shared: Also export shared encoder, decoder and centres (``shared.safetensors``).
        options: Format, precision and size; default: a copy.
        pick: Points of accuracy that the fastest trial of the front may lose; default: the
            winner.
        best_of_all: Export the best of winner, control and linear probe on validation.
        without_validation: Export the winner as it was trained on the training images alone.
        neighbours: Training images of each class, at most, whose features and thumbnails the
            bundle holds (``neighbours.safetensors``); default: none.
        say: Receives progress messages.
        cache_dir: Root of the node's caches.

    Returns:
        The directory of the exported bundle; the measurements are in its ``config.json``.

    Raises:
        UserError: If the run has no bundle yet, it is damaged, `out` is not empty, there is no
            shared branch to export, or something in `options` is not possible.
    """
    options = options or Options()
    options.check(with_shared=with_shared, neighbours=neighbours)
    if with_shared and pick is not None:
        raise UserError("--with-shared: found with --pick, allowed for the winner of a run")
    if best_of_all and (with_shared or pick is not None):
        other = "--with-shared" if with_shared else "--pick"
        raise UserError(f"--best-of-all: found with {other}, allowed alone")
    if without_validation and (with_shared or pick is not None or best_of_all or options.ensemble):
        raise UserError(
            "--without-validation: found with --with-shared, --pick, --best-of-all or --ensemble, "
            "allowed without them"
        )
    if options.ensemble and (pick is not None or best_of_all):
        other = "--best-of-all" if best_of_all else "--pick"
        raise UserError(f"--ensemble: found with {other}, allowed for the winner of a run")
    place = hub_place(run)
    if place is not None:
        run, _ = fetch(place)
    directory, out = RunDirectory(run), Path(out)
    if not directory.path.is_dir():
        raise UserError(f"{run}: no such run directory")
    alone = (directory.path / files.CLASSES).is_file()
    if alone:
        given = {
            "--with-shared": with_shared,
            "--pick": pick is not None,
            "--best-of-all": best_of_all,
            "--without-validation": without_validation,
            "--ensemble": options.ensemble,
        }
        _refuse_alone(directory.path, [name for name, there in given.items() if there])
    elif not directory.best.is_dir():
        raise UserError(_no_best(directory, run))
    files.refuse_filled(out)
    source = directory.path if alone else directory.best
    if pick is not None:
        from gsfl_tune.export.pick import picked_bundle

        options.require()
        source = picked_bundle(directory, pick, data=options.data, cache_dir=cache_dir, say=say)
    if without_validation:
        from gsfl_tune.export.pick import bundle_without_validation

        options.require()
        source = bundle_without_validation(
            directory, data=options.data, cache_dir=cache_dir, say=say
        )
    if best_of_all:
        source = _best_of_all(directory, say)
    elif alone:
        _say_of_bundle(directory.path, say)
    elif pick is None:
        _say_what_is_better(directory, say)
    if not options.is_copy:
        from gsfl_tune.export.convert import convert

        if options.ensemble:
            _export_ensemble(directory, out, options, say, cache_dir)
        else:
            convert(source, out, options, say=say, cache_dir=cache_dir)
        return out
    bundle = load_bundle(source, device="cpu")
    further: dict[str, bytes] = {}
    if with_shared:
        further[files.SHARED] = _shared_bytes(directory)
    if neighbours is not None:
        say("opening the images of the run")
        images = RunImages.open(bundle, options.data, cache_dir)
        found = neighbour_tensors(bundle.network, images, neighbours)
        further[files.NEIGHBOURS] = files.tensor_bytes(found)

    def fill(folder: Path) -> None:
        for path in sorted(source.iterdir()):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        if further:
            description = read_description(folder)
            for name, data in further.items():
                description["sha256"][name] = files.sha256(data)
                (folder / name).write_bytes(data)
            (folder / files.CONFIG).write_bytes(files.json_bytes(description))

    files.fill_directory(out, fill)
    return out


def _export_ensemble(
    run: RunDirectory,
    out: Path,
    options: Options,
    say: Callable[[str], None],
    cache_dir: Path | None,
) -> None:
    from gsfl_tune.export.convert import convert
    from gsfl_tune.export.members import calibration_of, require_seeds, seed_networks

    options.require()
    if not run.results_file.is_file():
        raise UserError(f"{run.results_file}: is gone; --ensemble needs to know the seeds")
    results = read_results(run.results_file)
    require_seeds(run, results)
    seeds = results.winner.seeds
    say(f"loading the models of {len(seeds)} seeds")
    convert(
        run.best,
        out,
        options,
        say=say,
        cache_dir=cache_dir,
        members=seed_networks(run, results, data=options.data, cache_dir=cache_dir),
        seeds=seeds,
        calibration=calibration_of(results),
    )


def _say_what_is_better(directory: RunDirectory, say: Callable[[str], None]) -> None:
    """Names a simpler model that is better on validation than the winner, if the run knows one."""
    if directory.results_file.is_file() and (first := ahead(read_results(directory.results_file))):
        say(f"{first} --best-of-all exports it")


def _say_of_bundle(folder: Path, say: Callable[[str], None]) -> None:
    """Says the same of a bundle that has left its run, from what it holds."""
    model = read_description(folder).get("model", "winner")
    if first := better_than(files.read_json_file(folder / files.METRICS), model):
        say(first)


def _best_of_all(directory: RunDirectory, say: Callable[[str], None]) -> Path:
    results = read_results(directory.results_file)
    model = best_on_validation(results)
    if "probe" not in validated(results):
        raise UserError(
            f"{directory.results_file}: found no validation metrics of the linear probe (an older "
            "version made the run), allowed: a run with all three models validated"
        )
    say(ahead(results) or "The winner is the best on the validation images.")
    if model == "winner":
        return directory.best
    if not directory.best_simple.is_dir():
        raise UserError(f"{directory.best_simple}: is gone; it held the {TITLES[model]}")
    return directory.best_simple


def _shared_bytes(directory: RunDirectory) -> bytes:
    source = directory.best_training
    if not (source / files.SHARED).is_file():
        raise UserError(
            f"{source}: no shared branch to export (the winner has a plain head, or the "
            "directory was removed)"
        )
    digest = files.read_json_file(source / "sha256.json")[files.SHARED]
    return files.read_checked(source / files.SHARED, digest)


def _refuse_alone(bundle: Path, options: list[str]) -> None:
    """Refuses what a bundle without its run cannot give."""
    if options:
        raise UserError(
            f"{', '.join(options)}: found with the bundle {bundle}, allowed with the directory of "
            "a run"
        )
    export = read_description(bundle).get("export")
    if export:
        raise UserError(
            f"{bundle}: found an export already ({export['format']}), allowed: a run, RUN/best, or "
            "an adapted bundle"
        )


def _no_best(directory: RunDirectory, given: str | Path) -> str:
    if not directory.experiment_file.is_file():
        return f"{given}: not a run directory (there is no {directory.experiment_file.name} in it)"
    return (
        f"{given}: the run has no winner yet. Finish it with\n"
        f"  gsfl-tune search {_quoted(directory.experiment_file)} "
        f"--run-dir {_quoted(Path(given))} --resume"
    )


def _quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
