"""Checks of an experiment beyond the types of its leaves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from gsfl_tune.experiment import edit
from gsfl_tune.experiment.data_config import SYNTHETIC_MANIFEST
from gsfl_tune.experiment.distributions import Categorical, Float
from gsfl_tune.experiment.errors import Problem
from gsfl_tune.experiment.fields import MISSING, did_you_mean, leaves, nearest, show
from gsfl_tune.experiment.further_checks import further_problems
from gsfl_tune.experiment.heads import SHARED_HEADS
from gsfl_tune.experiment.loss_terms import SHARED_TERMS
from gsfl_tune.experiment.missing import missing_file
from gsfl_tune.experiment.nodes import Node
from gsfl_tune.experiment.resource_checks import NO_FINETUNE_STAGE, SEVERAL, resource_problems
from gsfl_tune.experiment.search_checks import search_problems
from gsfl_tune.experiment.shard_checks import shard_problems
from gsfl_tune.experiment.space import Parameter, Space, ends
from gsfl_tune.hub_names import hub_place, name_problem
from gsfl_tune.plugins import plugins

LeafCheck = Callable[[Any], str | None]
"""Takes a value, returns a complaint or None."""

_DOWNLOADS = ("aircraft", "flowers102", "pets", "food101", "dtd", "gtsrb")
_KNOWN_GROUPS = ("typefaces", "nabirds", "inaturalist", "coco")


class Checks:
    """Runs every check and collects the problems.

    Args:
        space: The compiled space.
        root: The nodes it was compiled from.
        problems: Complaints are appended here.
        automatic: Leaves whose value follows from a time budget.
    """

    def __init__(
        self,
        space: Space,
        root: Node,
        problems: list[Problem],
        automatic: frozenset[str] = frozenset(),
    ) -> None:
        self._automatic = automatic
        self._space = space
        self._root = root
        self._problems = problems

    def run(self, leaf_checks: Mapping[str, LeafCheck]) -> None:
        """Runs all checks."""
        self._data()
        self._taxonomy()
        refused = self._weights()
        self._enqueue()
        self._warm_start()
        self._grid()
        self._views()
        self._shared_terms()
        self._teacher()
        self._eval_size()
        self._processes()
        self._problems.extend(resource_problems(self._root, self._space, divides=self._divides))
        further = [
            *further_problems(self._space, finetunes=self._finetunes),
            *shard_problems(self._space, finetunes=self._finetunes),
        ]
        for each in (*further, *search_problems(self._space)):
            self._complain(*each)
        for path, check in leaf_checks.items():
            for value in self._values(path):
                complaint = None if (path, value) in refused else check(value)
                if complaint:
                    self._complain(path, complaint, value)

    def _values(self, path: str) -> list[Any]:
        return ends(self._space.possible(path))

    def _complain(self, path: str, message: str, value: Any = MISSING) -> None:
        file, line = locate(self._root, path, value)
        self._problems.append(Problem(file, line, path, message))

    def _data(self) -> None:
        source = self._space.constants.get("data.source", "auto")
        download = self._space.constants.get("data.download", False)
        path = self._space.constants.get("data.path")
        if download and source not in _DOWNLOADS:
            allowed = f"for the sources {', '.join(_DOWNLOADS)}"
            self._complain("data.download", f"found true with source {source}, allowed {allowed}")
        limits = self._space.constants.get("data.value_range")
        if limits is not None and not (len(limits) == 2 and limits[0] < limits[1]):
            message = f"found {limits}, allowed two numbers, the smaller one first, or null"
            self._complain("data.value_range", message)
        exclude = self._space.constants.get("data.exclude")
        complaint = None if exclude is None else missing_file(exclude)
        if complaint:
            self._complain("data.exclude", f"{complaint}; allowed a text file, one path a line")
        together = self._space.constants.get("data.split.together")
        complaint = None if together is None else missing_file(together)
        if complaint:
            message = f"{complaint}; allowed a CSV file with the columns path and set"
            self._complain("data.split.together", message)
        texts = self._space.constants.get("data.class_text")
        complaint = None if texts is None else missing_file(texts)
        if complaint:
            self._complain("data.class_text", f"{complaint}; allowed a table or a JSON object")
        weights = self._space.constants.get("data.text_weights")
        complaint = None if weights is None else missing_file(weights)
        if complaint:
            self._complain("data.text_weights", f"{complaint}; allowed a file of weights")
        for restorer in self._values("data.augment.restorer"):
            complaint = None if restorer is None else missing_file(restorer)
            if complaint:
                message = f"{complaint}; allowed a file of weights, or null"
                self._complain("data.augment.restorer", message, restorer)
        unlabelled = self._space.constants.get("data.unlabelled")
        for item in [unlabelled] if isinstance(unlabelled, str) else unlabelled or []:
            complaint = missing_file(item)
            if complaint:
                self._complain("data.unlabelled", complaint, item)
        synthetic = self._space.constants.get("data.synthetic")
        for item in [synthetic] if isinstance(synthetic, str) else synthetic or []:
            complaint = missing_file(os.path.join(item, SYNTHETIC_MANIFEST))
            if complaint:
                allowed = "allowed a folder that `gsfl-tune synthesize` wrote"
                self._complain("data.synthetic", f"{complaint}; {allowed}", item)
        columns = self._space.constants.get("data.box_columns")
        if columns is not None and len(columns) not in (1, 4):
            message = f"found {len(columns)} columns, allowed one or four"
            self._complain("data.box_columns", message)
        if source == "typefaces" or source in plugins("source"):
            return  # a package checks its own paths
        root = self._space.constants.get("data.root")
        complaint = None if root is None else missing_file(root)
        if complaint:
            self._complain("data.root", complaint, root)
        if path is None or path == [] or path == "":
            self._complain("data.path", f"is missing, source {source} needs a path")
            return
        for item in path if isinstance(path, list) else [path]:
            if not download or source not in _DOWNLOADS:
                complaint = missing_file(item)
                if complaint:
                    self._complain("data.path", complaint, item)

    def _taxonomy(self) -> None:
        if "taxonomy" not in self._values("model.groups.method"):
            return
        for value in self._values("model.groups.taxonomy"):
            if value is not None:
                complaint = missing_file(value)
                if complaint:
                    self._complain("model.groups.taxonomy", complaint, value)
            elif not self._knows_groups():
                message = (
                    "is missing, method taxonomy needs a CSV file (columns class, group), "
                    "folders above the classes (data.classes: leaf or path), or a source that "
                    f"knows groups (data.source: {', '.join(_KNOWN_GROUPS)})"
                )
                self._complain("model.groups.taxonomy", message)

    def _knows_groups(self) -> bool:
        """Returns whether the data may provide groups of classes."""
        constants = self._space.constants
        source = constants.get("data.source", "auto")
        return (
            source in _KNOWN_GROUPS
            or source in plugins("source")
            or constants.get("data.classes", "top") != "top"
        )

    def _weights(self) -> set[tuple[str, Any]]:
        refused = set()
        for path, words in edit.NOT_FILES.items():
            for value in self._values(path):
                if value is None or value in words or hub_place(value):
                    continue
                if problem := name_problem(value):
                    self._complain(path, problem, value)
                    refused.add((path, value))
                elif "://" not in value and not os.path.isfile(value):
                    name = os.path.basename(value)
                    message = (
                        f"found '{value}', allowed {', '.join(words)}, hf-hub:OWNER/NAME or an "
                        "existing file"
                    )
                    self._complain(path, message + nearest(name, words), value)
                    refused.add((path, value))
        return refused

    def _grid(self) -> None:
        if "grid" in self._values("search.sampler.name"):
            for parameter in continuous(self._space):
                self._complain(parameter.path, no_grid(parameter))

    def _views(self) -> None:
        if not self._space.constants.get("data.views"):
            return
        blocks = [each for each in self._values("training.finetune.blocks") if each != "all"]
        for key, off in (("fourier", 0), ("adain", 0), ("start_size", 1)):
            path = f"training.finetune.{key}"
            for value in self._values(path):
                if value != off and blocks:
                    self._complain(
                        path,
                        f"found {value:g} with data.views and training.finetune.blocks "
                        f"{blocks[0]}, whose activations are cached; allowed {off}, data.views: 0, "
                        "or blocks: all",
                        value,
                    )
                    break
        for parameter in self._space.parameters:
            draw = parameter.distribution
            if parameter.path.startswith("data.augment.") and not isinstance(draw, Categorical):
                which = "" if parameter.name == parameter.path else f"{parameter.name} "
                self._complain(
                    parameter.path,
                    f"found {which}{draw.describe()} with data.views, allowed one value or a "
                    "choice: every value needs features of its own, computed once",
                )

    def _shared_terms(self) -> None:
        heads = self._values("model.head")
        if set(heads) & set(SHARED_HEADS):
            return
        for name in SHARED_TERMS:
            path = f"loss.{name}.weight"
            weight = self._space.constants.get(path)
            if weight:
                self._complain(
                    path,
                    f"found {weight:g} with model.head {', '.join(map(str, heads))}, allowed 0, or "
                    f"model.head: {' or '.join(SHARED_HEADS)}: no other head has a shared part",
                )

    def _teacher(self) -> None:
        path = "loss.distill.weight"
        weight = max(self._values(path), default=0)
        if weight and None in self._values("training.teacher"):
            self._complain(
                path,
                f"found {weight:g} without training.teacher, allowed 0, or training.teacher: the "
                "directory of a bundle, such as RUN/best",
                weight,
            )

    def _eval_size(self) -> None:
        path = "data.eval_image_size"
        sizes = [size for size in self._values(path) if size is not None]
        if sizes and not self._finetunes:
            self._complain(
                path,
                f"found {sizes[0]} without a finetune stage, allowed null: a head is trained on "
                "features of data.image_size, and would see others in use",
                sizes[0],
            )

    @property
    def _divides(self) -> bool:
        """Returns whether several processes of a trial have batches to divide."""
        return self._finetunes or True in self._values("training.pretrain")

    @property
    def _finetunes(self) -> bool:
        path = "training.finetune.epochs"
        # What follows from a time budget has no value yet.
        return path in self._automatic or max(self._values(path), default=0) > 0

    def _processes(self) -> None:
        if self._divides:
            return
        for key in SEVERAL:
            path = f"search.resources.{key}"
            value = self._space.constants.get(path) or 1
            if value > 1:
                self._complain(path, f"found {value} {NO_FINETUNE_STAGE}")

    def _warm_start(self) -> None:
        for run in self._space.constants.get("search.warm_start") or []:
            complaint = missing_file(run)
            if complaint:
                self._complain("search.warm_start", f"{complaint}; allowed run directories", run)

    def _enqueue(self) -> None:
        node = edit.find(self._root, "search.enqueue")
        items = node.value if node is not None and isinstance(node.value, list) else []
        for index, item in enumerate(items):
            place = f"search.enqueue[{index}]"
            if not isinstance(item.value, dict):
                continue
            for key, entry in item.value.items():
                self._enqueued(f"{place}.{key}", key, entry)

    def _enqueued(self, place: str, key: str, entry: Node) -> None:
        def complain(message: str) -> None:
            self._problems.append(Problem(entry.file, entry.line, place, message))

        path = key.partition("@")[0]
        if not self._space.knows(key):
            complain(f"unknown key{did_you_mean(key, self._space.alternatives)}")
        elif path in leaves():
            leaf = leaves()[path]
            if leaf.not_searched:
                complain(f"cannot differ between trials: {leaf.not_searched}")
            elif isinstance(entry.value, dict | list):
                complain(f"found {show(entry.plain())}, allowed {leaf.allowed}")
            elif complaint := leaf.complaint(entry.value):
                complain(complaint)
        else:
            names = self._space.alternatives[path][0].merges
            if not isinstance(entry.value, str) or entry.value not in names:
                complain(f"found {show(entry.plain())}, allowed {', '.join(names)}")


def continuous(space: Space) -> list[Parameter]:
    """Lists parameters that a grid cannot cover: ranges of floats without a step."""
    return [
        parameter
        for parameter in space.parameters
        if isinstance(draw := parameter.distribution, Float)
        and draw.step is None
        and draw.low < draw.high
    ]


def no_grid(parameter: Parameter) -> str:
    """Explains why a grid cannot cover a parameter, and what it can cover."""
    which = "" if parameter.name == parameter.path else f"{parameter.name} "
    return (
        f"found {which}{parameter.distribution.describe()} with search.sampler.name grid, "
        "allowed choice, int, or float with a step"
    )


def locate(root: Node, path: str, value: Any = MISSING) -> tuple[str, int]:
    """Finds file and line of a leaf or of a value in its distribution, else of its section."""
    node = edit.find(root, path)
    if node is None:
        for choice in edit.named_choices(root).values():
            inside = _line_of(choice, value) if value is not MISSING else None
            if inside is not None:
                return inside.file, inside.line
        parent = path.rpartition(".")[0]
        return locate(root, parent) if parent else (root.file, root.line)
    exact = _line_of(node, value) if value is not MISSING else None
    node = node if exact is None else exact
    return node.file, node.line


def _line_of(node: Node, value: Any) -> Node | None:
    if isinstance(node.value, dict | list):
        children = node.value.values() if isinstance(node.value, dict) else node.value
        return next((found for child in children if (found := _line_of(child, value))), None)
    return node if node.value == value else None
