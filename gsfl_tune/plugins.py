"""Extensions in installed packages: backbones, poolings, loss terms, methods, samplers and others.

A package lists its extensions in its metadata, as entry points with one group per kind. Names are
read from the metadata, so that checking a file imports nothing. The code is imported where it is
used, in every process that uses it: a worker finds it like the driver. An experiment file can only
name what is installed; it cannot import anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

Kind = Literal[
    "backbone", "pooling", "loss_term", "transform", "method", "metric", "sampler", "source"
]

GROUPS: dict[Kind, str] = {
    "backbone": "gsfl_tune.backbones",
    "pooling": "gsfl_tune.poolings",
    "loss_term": "gsfl_tune.loss_terms",
    "transform": "gsfl_tune.transforms",
    "method": "gsfl_tune.methods",
    "metric": "gsfl_tune.metrics",
    "sampler": "gsfl_tune.samplers",
    "source": "gsfl_tune.sources",
}

BUILT_IN: dict[Kind, tuple[str, ...]] = {
    "backbone": (),  # timm's models are looked up when they are used
    "pooling": (
        *("average", "bilinear", "compact_bilinear", "native", "attention"),
        *("cls", "cls_mean", "mean_last_2", "mean_last_4", "gem", "isqrt_cov", "screened"),
    ),
    "loss_term": (),
    "transform": ("trivial", "rand", "degrade", "erasing"),
    "method": (
        "single",
        "rdrop",
        "two_views",
        "sam",
        "attention_crop",
        "snapmix",
        "pmg",
        "recurrent_attention",
        "counterfactual_attention",
        "feature_alignment",
        "attribute_attention",
        "part_rcnn",
        "fixmatch",
    ),
    # Of the validation images; experiment files write `validation/NAME`.
    "metric": (
        *("accuracy", "balanced_accuracy", "top5", "nll", "ece", "top3", "macro_f1"),
        *("worst_recall", "auto_coverage", "auto_accuracy"),
        *("auroc", "average_precision", "expected_cost"),
    ),
    "sampler": ("tpe", "gp", "cmaes", "random", "sobol", "grid"),
    "source": (
        *("auto", "folder"),
        *("csv", "jsonl", "coco", "parquet", "arrow", "webdataset", "fiftyone"),
        *("cub", "nabirds", "aircraft", "flowers102", "pets", "cars"),
        *("dogs", "food101", "inaturalist", "dtd", "gtsrb", "typefaces"),
    ),
}

# Reserved names: existing numbers of an epoch, and names that a section of a file cannot have.
# Terms of the loss that are built in join by `reserve`: their table is above this module.
_SECTION = ("copy", "json", "dict", "construct", "schema", "validate")
_TAKEN: dict[Kind, tuple[str, ...]] = {
    "loss_term": (
        *("loss", "cross_entropy", "reconstruction", "class_center", "shared_center"),
        *("fsdg_decorrelation", "fsdg_consistency", "fsdg_specificity", "fsdg_calibration"),
        *("disagreement", "jigsaw", "rank"),
        *("attribute_error", "attribute_contrast"),
        *("part_place", "part_overlap", "part_presence"),
        *("pseudo", "pseudo_share", *_SECTION),
    ),
    # Reserved too: streams of random numbers.
    "transform": ("mixing", "drop_path", "fourier", "adain", "method", "mixstyle", *_SECTION),
}
_RESERVED: dict[Kind, frozenset[str]] = {}
_NAME = re.compile(r"[a-z][a-z0-9_]*")


# Sections with a key for each extension; a value of 0 leaves it out.
ADDED_SECTIONS = ("loss.terms", "data.augment.transforms")


def left_out(path: str, value: object) -> bool:
    """Returns whether a leaf belongs to an extension that is left out."""
    return not value and path.rpartition(".")[0] in ADDED_SECTIONS


class PluginError(ValueError):
    """Raised for a plugin that cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Plugin:
    """Describes one extension in an installed package.

    Attributes:
        kind: Kind of extension.
        name: Name in experiment files.
        package: The package with its version, such as ``my-poolings 1.2``. Part of cache keys:
            another version computes anew.
        entry: Location of its code.
    """

    kind: Kind
    name: str
    package: str
    entry: EntryPoint

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} {self.name} of {self.package}"

    def load(self) -> Any:
        """Imports the code.

        Raises:
            PluginError: When the import fails, whatever the reason.
        """
        try:
            return self.entry.load()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"{self} cannot be loaded ({reason})") from error

    def load_class(self, base: type[Any]) -> Any:
        """Imports the code and checks its class.

        Raises:
            PluginError: When it cannot be loaded, or is not a subclass of `base`.
        """
        found = self.load()
        if not (isinstance(found, type) and issubclass(found, base)):
            wanted = f"{base.__module__.partition('._')[0]}.{base.__name__}"
            raise PluginError(f"{self} is {self.entry.value}, which is not a subclass of {wanted}")
        return found


def plugin(kind: Kind, name: str) -> Plugin:
    """Finds what a package adds.

    Raises:
        PluginError: If no installed package adds it.
    """
    added = plugins(kind).get(name)
    if added is None:
        raise PluginError(f"no installed package adds the {kind.replace('_', ' ')} {name!r}")
    return added


def make(kind: Kind, name: str, base: type[Any], *arguments: object, made: str) -> Any:
    """Creates an extension of a package.

    Args:
        kind: Kind of extension.
        name: Name of its entry point.
        base: Required base class.
        arguments: Arguments of its class.
        made: The arguments in words, for messages.

    Raises:
        PluginError: If it is not installed, cannot be loaded, or cannot be created.
    """
    added = plugin(kind, name)
    found = added.load_class(base)
    try:
        return found(*arguments)
    except MemoryError:
        raise
    except Exception as error:
        raise unmade(added, made, error) from error


def unmade(added: Plugin, made: str, error: Exception) -> PluginError:
    """Makes the error for an extension whose class could not be called.

    Args:
        added: The extension.
        made: Its arguments in words.
        error: What its code raised, which may be anything.
    """
    reason = f"{type(error).__name__}: {error}"
    return PluginError(f"{added} cannot be made {made} ({reason})")


def plugins(kind: Kind) -> dict[str, Plugin]:
    """Returns the extensions of a kind in installed packages, by name."""
    return _found()[0][kind]


def names(kind: Kind) -> tuple[str, ...]:
    """Returns every name of a kind: built-in names, then those of packages."""
    return (*BUILT_IN[kind], *plugins(kind))


def complaints() -> tuple[tuple[str, str], ...]:
    """Returns rejected plugins: the package with its version, and the reason."""
    return _found()[1]


def reserve(kind: Kind, taken: Iterable[str]) -> None:
    """Keeps names for what is built in: no package can add an extension of such a name.

    Args:
        kind: Kind of extension.
        taken: Names of the table of what is built in.
    """
    _RESERVED[kind] = frozenset(taken)
    _found.cache_clear()


def packages() -> tuple[str, ...]:
    """Returns the names of packages with extensions."""
    found = {
        plugin.package.partition(" ")[0] for kind in GROUPS for plugin in plugins(kind).values()
    }
    return tuple(sorted(found))


@cache
def _found() -> tuple[dict[Kind, dict[str, Plugin]], tuple[tuple[str, str], ...]]:
    listed = entry_points()
    found: dict[Kind, dict[str, Plugin]] = {}
    wrong: list[tuple[str, str]] = []
    for kind, group in GROUPS.items():
        found[kind] = {}
        for entry in sorted(listed.select(group=group), key=lambda each: each.name):
            package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown 0"
            complaint = _complaint(kind, entry, found[kind])
            if complaint:
                wrong.append((package, f"entry point {group}: found {entry.name}, {complaint}"))
            else:
                found[kind][entry.name] = Plugin(kind, entry.name, package, entry)
    return found, tuple(wrong)


def _complaint(kind: Kind, entry: EntryPoint, others: dict[str, Plugin]) -> str | None:
    if not _NAME.fullmatch(entry.name):
        return "allowed are small letters, digits and _ (the first one a letter)"
    taken = (*BUILT_IN[kind], *_TAKEN.get(kind, ()), *_RESERVED.get(kind, ()))
    if entry.name in taken:
        return "a name that is taken; allowed is another name"
    if entry.name in others:
        return f"which {others[entry.name].package} adds too; allowed is one of them"
    return None
