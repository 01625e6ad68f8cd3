"""The experiment: one checked YAML file with its search space."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gsfl_tune.arguments import instance, path_of, texts
from gsfl_tune.experiment import edit, nodes
from gsfl_tune.experiment.automatic import resolve, unplanned
from gsfl_tune.experiment.checks import Checks, LeafCheck, locate
from gsfl_tune.experiment.compile import compile_space
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.effects import without_effect
from gsfl_tune.experiment.errors import ExperimentError, Problem, UserError
from gsfl_tune.experiment.fields import MISSING, did_you_mean, leaves, sections, show
from gsfl_tune.experiment.nodes import Node
from gsfl_tune.experiment.space import Space, bounds, ends
from gsfl_tune.experiment.unmet import unmet_conditions
from gsfl_tune.plugins import complaints


class Experiment:
    """Holds a user's experiment; it is immutable, and methods that change it return a new one.

    Attributes:
        name: Name of the experiment.
        file: Its file, for messages.
        space: Its parameters.
        automatic: Leaves that follow from ``search.time_budget``, by dotted path. Until they are
            planned they have their numbers for no budget.
    """

    name: str
    file: str
    space: Space
    automatic: frozenset[str]

    def __init__(
        self,
        root: Node,
        file: str,
        problems: list[Problem],
        checks: Mapping[str, LeafCheck] | None,
        automatic: frozenset[str] = frozenset(),
    ) -> None:
        """Makes an experiment; users call `load` or `parse`.

        Args:
            root: Nodes of the file, overrides applied.
            file: Name of the file.
            problems: Problems found so far; raised together with further ones.
            checks: Further checks by dotted path; None to leave out all checks of files.
            automatic: Automatic leaves of the experiment that this one is made from.

        Raises:
            ExperimentError: With every problem.
        """
        self._root = root
        self.file = file
        edit.expand_files(root)
        self.automatic = automatic | resolve(root)
        space = compile_space(root, problems)
        if space is not None:
            self.space = space
            self.name = str(space.constants["name"])
            if checks is not None:
                Checks(space, root, problems, self.automatic).run(checks)
            if not problems:
                self._check_defaults(problems)
        if problems:
            raise ExperimentError(_sorted(problems, file))

    @classmethod
    def load(
        cls,
        path: str | Path,
        overrides: Sequence[str] = (),
        checks: Mapping[str, LeafCheck] | None = None,
    ) -> Experiment:
        """Reads an experiment file.

        Args:
            path: The YAML file.
            overrides: ``path=value`` each, the value a piece of YAML.
            checks: Functions by dotted path, called with every value that the leaf can take; they
                return a complaint or None.

        Raises:
            ExperimentError: With every problem of the file.
        """
        path_of(path, "Experiment.load: path")
        name = str(path)  # as it was given
        try:
            with open(path, "rb") as stream:
                data = stream.read(nodes.MAX_BYTES + 1)
                size = os.fstat(stream.fileno()).st_size
        except IsADirectoryError:
            raise ExperimentError([Problem(name, 0, "", "is a directory, not a file")]) from None
        except OSError as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else error.strerror
            raise ExperimentError([Problem(name, 0, "", f"{reason}")]) from None
        if len(data) > nodes.MAX_BYTES:
            message = f"found {max(size, len(data)):,} bytes, allowed at most {nodes.MAX_BYTES:,}"
            raise ExperimentError([Problem(name, 0, "", message)])
        text = nodes.decode(data, name)
        return cls.parse(text, file=name, overrides=overrides, checks=checks)

    @classmethod
    def parse(
        cls,
        text: str,
        *,
        file: str = "<string>",
        overrides: Sequence[str] = (),
        checks: Mapping[str, LeafCheck] | None = None,
    ) -> Experiment:
        """Reads an experiment from its text; see `load`."""
        instance(str, text, "Experiment.parse: text", "the text of an experiment file")
        overrides = texts(overrides, "Experiment: overrides", "a list of texts such as ['name=x']")
        problems = [Problem(package, 0, "", message) for package, message in complaints()]
        root = nodes.read_yaml(text, file, problems)
        if root is not None and root.value is None:
            problems.append(Problem(file, root.line, "", "found nothing, allowed a mapping"))
        elif root is not None and root.readable and not isinstance(root.value, dict):
            keys = ", ".join(sections()[""].model_fields)
            found = show(root.plain())
            message = f"found {found}, allowed a mapping with {keys}"
            problems.append(Problem(file, root.line, "", message))
        if root is None or not isinstance(root.value, dict):
            raise ExperimentError(_sorted(problems, file))
        for text_of_one in overrides:
            edit.override(root, text_of_one, problems)
        return cls(root, file, problems, checks or {})

    def default_params(self) -> dict[str, Any]:
        """Returns the defaults of the parameters that are active with defaults."""
        return self.space.default_params()

    def defaults(self) -> Config:
        """Returns the configuration with the defaults of all distributions."""
        return self.configure(self.default_params())

    def configure(self, params: Mapping[str, Any]) -> Config:
        """Returns the configuration with drawn values.

        Args:
            params: Values by parameter name. Names of inactive parameters are ignored; an active
                parameter that is missing takes its default.

        Raises:
            UserError: The values cannot be combined (such as no epochs in both stages).
        """
        instance(Mapping, params, "Experiment.configure: params", "a mapping of names to values")
        try:
            return self._configure(params)
        except ValidationError as error:
            drawn = ", ".join(f"{name}={value}" for name, value in params.items())
            reasons = "; ".join(_reason(item) for item in error.errors())
            raise UserError(f"{self.file}: {reasons} (with {drawn or 'the defaults'})") from None

    def _configure(self, params: Mapping[str, Any]) -> Config:
        tree: dict[str, Any] = {}
        for path, value in self.space.leaf_values(params).items():
            *above, key = path.split(".")
            section = tree
            for name in above:
                section = section.setdefault(name, {})
            section[key] = value
        return Config.model_validate(tree)

    def _check_defaults(self, problems: list[Problem]) -> None:
        try:
            self._configure(self.default_params())
        except ValidationError as error:
            for item in error.errors():
                path = ".".join(str(part) for part in item["loc"])
                file, line = locate(self._root, path) if path else (self.file, 0)
                problems.append(Problem(file, line, path, _reason(item, place=False)))

    def provisional(self) -> Experiment:
        """Returns the experiment before its time budget is planned, with a trained backbone.

        Checks and prices of memory, disk and passes use the largest possible plan.
        """
        if self.defaults().search.time_budget is None:
            return self  # nothing is planned
        path = "training.finetune.epochs"
        alone = path not in self.automatic and max(self.values(path)) == 0
        values = unplanned(alone=alone)
        wanted = {k: v for k, v in values.items() if k in self.automatic}
        return self.fixed(wanted) if wanted else self

    def fixed(self, values: Mapping[str, Any]) -> Experiment:
        """Returns the same experiment with leaves replaced by constants.

        Args:
            values: Constants by dotted path; None removes the value in the file, so that the schema
                default holds. A choice of named mappings takes one of its names.

        Raises:
            ExperimentError: A path is unknown or a value not allowed.
        """
        instance(Mapping, values, "Experiment.fixed: values", "a mapping of dotted paths to values")
        root = self._root.copy()
        problems = []
        for path, value in values.items():
            named = edit.named_choices(root)
            if path not in leaves() and path not in named:
                problems.append(Problem(self.file, 0, path, f"unknown key{did_you_mean(path)}"))
            elif path in named and value not in (None, *named[path].value["choice"].value):
                names = ", ".join(named[path].value["choice"].value)
                problems.append(
                    Problem(self.file, 0, path, f"found {show(value)}, allowed {names}")
                )
            else:
                file, line = locate(root, path)
                edit.put(root, path, None if value is None else nodes.as_node(value, file, line))
        planned = Experiment(root, self.file, problems, None, self.automatic)
        planned.automatic = planned.automatic - values.keys()
        return planned

    def automatic_too(self, paths: Iterable[str]) -> Experiment:
        """Returns the same experiment with further leaves that follow from its time budget."""
        further = self.automatic | frozenset(paths)
        return Experiment(self._root.copy(), self.file, [], None, further)

    def clamp(self, path: str, high: float) -> Experiment:
        """Returns the same experiment with a lower upper bound for a leaf's distributions.

        Ranges end at ``high`` at most and larger choices are dropped (if none is left, ``high``
        remains). A larger schema default is replaced. A constant in the file is kept.
        """
        root = self._root.copy()
        edit.clamp(root, path, high)
        return Experiment(root, self.file, [], None, self.automatic)

    def renamed(self, texts: Mapping[str, str]) -> Experiment:
        """Returns the same experiment with texts replaced by others that mean the same.

        Args:
            texts: What replaces each text, wherever it is a value: of leaves, in choices,
                conditions and `search.enqueue`.
        """
        root = self._root.copy()
        edit.replace_texts(root, texts)
        return Experiment(root, self.file, [], None, self.automatic)

    def bounds(self, path: str) -> Any:
        """Returns the possible values of a leaf.

        Returns:
            ``(low, high)`` for ranges (over all alternatives), a list of the values of a choice, or
            its only value.
        """
        return bounds(self._possible(path))

    def values(self, path: str) -> list[Any]:
        """Lists every constant and choice of a leaf; both ends of ranges."""
        return ends(self._possible(path))

    def _possible(self, path: str) -> Any:
        instance(str, path, "Experiment: path", "a dotted path, such as 'model.dropout'")
        if path not in leaves() and path not in self.space.alternatives:
            raise UserError(f"{path}: unknown key{did_you_mean(path)}")
        return self.space.possible(path)

    @property
    def warnings(self) -> list[Problem]:
        """Finds allowed but suspicious parts: conditions that are never met, idle parameters."""
        idle = without_effect(self.provisional().space, self._root)
        return sorted([*unmet_conditions(self.space, self._root), *idle])

    @property
    def largest_image_size(self) -> int:
        """Returns the largest side in pixels that any trial can use."""
        sizes = [*self.values("data.image_size"), *self.values("data.eval_image_size")]
        return int(max(size for size in sizes if size is not None))

    def to_yaml(self) -> str:
        """Writes the experiment with overrides and distributions; it loads to an equal one."""
        return nodes.write_yaml(self._root.plain())

    def locate(self, path: str, value: Any = MISSING) -> tuple[str, int]:
        """Returns file and line of a leaf, or of the nearest section; line 0 for an override.

        Args:
            path: Dotted path of the leaf.
            value: The value that is meant, where the leaf has several.
        """
        return locate(self._root, path, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and self._root.plain() == other._root.plain()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Experiment({self.name!r}, {len(self.space)} parameters, file={self.file!r})"


def _reason(error: Any, *, place: bool = True) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    path = ".".join(str(part) for part in error["loc"])
    found = "" if error["type"] == "value_error" else f", found {show(error.get('input'))}"
    leaf = leaves().get(path)
    if leaf is not None:
        message, found = f"found {show(error.get('input'))}, allowed {leaf.allowed}", ""
    return f"{path}: {message}{found}" if place and path else f"{message}{found}"


def _sorted(problems: list[Problem], file: str) -> list[Problem]:
    # Problems of the file first, from top to bottom, then those of the command line.
    unique = list(dict.fromkeys(problems))
    return sorted(unique, key=lambda problem: (problem.file != file, problem.line))
