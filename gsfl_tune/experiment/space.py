"""The parameters of an experiment: their distributions, conditions, and effect on the leaves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gsfl_tune.experiment import conditions
from gsfl_tune.experiment.conditions import Condition
from gsfl_tune.experiment.distributions import (
    Categorical,
    Distribution,
    Scalar,
    Suggests,
    is_number,
    same,
)
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.fields import MISSING, did_you_mean, leaves, show
from gsfl_tune.experiment.needs import is_idle

_MOST_COMBINATIONS = 5_000
_Items = list[Distribution | tuple[Scalar]]


@dataclass(frozen=True)
class Parameter:
    """Describes one value that is drawn.

    Attributes:
        name: Name in the study: the dotted path, ``path@0``, ``path@1`` ... for alternatives.
        path: Dotted path of its leaf, or of a choice of named mappings.
        distribution: What it is drawn from; named mappings are a choice of their names.
        when: Conditions by dotted path; all must hold for the parameter to take part.
        otherwise: Value of the leaf while they do not hold, `MISSING` for the schema default.
        merges: For named mappings: name to the leaves it sets, by dotted path.
    """

    name: str
    path: str
    distribution: Distribution
    when: Mapping[str, Condition] = field(default_factory=dict)
    otherwise: Any = MISSING
    merges: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)


class _Values:
    """Computes leaf values for one assignment of the parameters, on demand."""

    def __init__(self, space: Space, params: Mapping[str, Any]) -> None:
        self._space = space
        self._params = params
        self._known: dict[str, Any] = {}

    def holds(self, parameter: Parameter) -> bool:
        return all(condition.holds(self[path]) for path, condition in parameter.when.items())

    def has_effect(self, parameter: Parameter) -> bool:
        """Returns whether it holds, and the training would notice another value."""
        # A choice of named mappings is what the user calls the values that it sets.
        return self.holds(parameter) and (
            bool(parameter.merges) or not is_idle(parameter.path, self.__getitem__)
        )

    def drawn(self, parameter: Parameter) -> Any:
        draw = parameter.distribution
        return draw.exact(self._params.get(parameter.name, draw.default))

    def __getitem__(self, path: str) -> Any:
        if path not in self._known:
            self._known[path] = self._find(path)
        return self._known[path]

    def _find(self, path: str) -> Any:
        value = self._written(path)
        if value is not MISSING:
            return value
        leaf = leaves().get(path)
        return MISSING if leaf is None else leaf.default

    def _written(self, path: str) -> Any:
        space = self._space
        if path in space.constants:
            return space.constants[path]
        if path in space.alternatives:
            alternatives = space.alternatives[path]
            for parameter in alternatives:
                if self.holds(parameter):
                    return self.drawn(parameter)
            return next((p.otherwise for p in alternatives if p.otherwise is not MISSING), MISSING)
        if path in space.merged:
            merging = space.merged[path]
            return merging.merges.get(self[merging.path], {}).get(path, MISSING)
        return MISSING


class Space:
    """Holds all parameters of an experiment.

    Attributes:
        parameters: Those that can take part, each after the parameters in its conditions.
        constants: Leaves with a fixed value, by dotted path.
        alternatives: All parameters of a path, including those that can never take part.
        merged: Leaves that named mappings set, with the parameter that chooses the mapping.
    """

    def __init__(self, constants: Mapping[str, Any], parameters: Sequence[Parameter]) -> None:
        """Removes parameters that can never take part.

        Args:
            constants: Fixed leaves by dotted path.
            parameters: Every parameter, each after the parameters in its conditions.
        """
        self.constants = dict(constants)
        self.alternatives: dict[str, list[Parameter]] = {}
        self.merged: dict[str, Parameter] = {}
        for parameter in parameters:
            self.alternatives.setdefault(parameter.path, []).append(parameter)
            for leaves_set in parameter.merges.values():
                self.merged.update(dict.fromkeys(leaves_set, parameter))
        self.parameters: list[Parameter] = []
        self._reachable: set[str] = set()
        self._possible: dict[str, _Items] = {}
        for parameter in parameters:
            if all(
                any(condition.holds(value) for value in self._domain(path, [condition]))
                for path, condition in parameter.when.items()
            ):
                self._reachable.add(parameter.name)
                # A single named mapping that always holds is a constant with a name.
                if not (parameter.merges and len(parameter.merges) == 1 and not parameter.when):
                    self.parameters.append(parameter)

    def __len__(self) -> int:
        return len(self.parameters)

    def active(self, params: Mapping[str, Any]) -> set[str]:
        """Returns the names of active parameters for these values (missing ones: defaults)."""
        values = _Values(self, params)
        return {parameter.name for parameter in self.parameters if values.holds(parameter)}

    def active_params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Selects the values that have an effect. All code decides this here.

        All code that shows a trial calls this. Samplers of a fixed space also draw inactive
        parameters, which have no effect; all samplers draw parameters that need something else to
        have one (groups need a head with groups) and have no such condition in the file; and a
        float may be slightly off its step.

        Args:
            params: Values by parameter name, as stored in a study.

        Returns:
            Those parameters only, in their order; numbers on steps as exact decimals.
        """
        values = _Values(self, params)
        return {
            parameter.name: parameter.distribution.exact(params[parameter.name])
            for parameter in self.parameters
            if parameter.name in params and values.has_effect(parameter)
        }

    def default_params(self) -> dict[str, Any]:
        """Returns the defaults of the parameters that are active with defaults."""
        active = self.active({})
        return {p.name: p.distribution.default for p in self.parameters if p.name in active}

    def suggest(self, trial: Suggests, *, everything: bool = False) -> dict[str, Any]:
        """Draws a value for every active parameter.

        Args:
            trial: Anything with ``suggest_categorical``, ``suggest_int`` and ``suggest_float``.
            everything: Draw inactive parameters too, for samplers that need a fixed space.

        Returns:
            Values by parameter name.
        """
        params: dict[str, Any] = {}
        values = _Values(self, params)
        for parameter in self.parameters:
            if everything or values.holds(parameter):
                params[parameter.name] = parameter.distribution.suggest(trial, parameter.name)
        return params

    def leaf_values(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Returns every leaf with a value other than from the schema default, by dotted path."""
        values = _Values(self, params)
        paths = [*self.constants, *self.alternatives, *self.merged]
        found = {path: values._written(path) for path in paths if path in leaves()}
        return {path: value for path, value in found.items() if value is not MISSING}

    def clip(self, wanted: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Returns the nearest active parameters to some wanted values.

        Args:
            wanted: Values by dotted path or parameter name; missing ones get their default.

        Returns:
            Values by parameter name, and one notice per value that could not be kept.

        Raises:
            UserError: A key is neither a leaf nor a parameter.
        """
        for key in wanted:
            if not self.knows(key):
                raise UserError(f"{key}: unknown key{did_you_mean(key, self.alternatives)}")
        params: dict[str, Any] = {}
        values = _Values(self, params)
        for parameter in self.parameters:
            if values.holds(parameter):
                value = wanted.get(parameter.name, wanted.get(parameter.path, MISSING))
                draw = parameter.distribution
                params[parameter.name] = draw.default if value is MISSING else draw.clip(value)
        notices = []
        for key, value in wanted.items():
            notice = self._notice(key, value, params, values)
            if notice:
                notices.append(f"{key}: {notice}")
        return params, notices

    def knows(self, key: str) -> bool:
        """Returns whether it is a leaf, a choice of named mappings or a parameter name."""
        if key in leaves() or key in self.alternatives:
            return True
        return any(p.name == key for group in self.alternatives.values() for p in group)

    def _notice(
        self, key: str, value: Any, params: Mapping[str, Any], values: _Values
    ) -> str | None:
        path = key.partition("@")[0]
        group = self.alternatives.get(path, [])
        drawn = next((p for p in group if p.name in params and key in (path, p.name)), None)
        if drawn is None and key != path:
            return f"{show(value)} is left out, as its condition does not hold"
        used = values[path] if drawn is None else params[drawn.name]
        if same(used, value):
            return None
        if is_number(used) and is_number(value) and math.isclose(used, value, rel_tol=1e-9):
            return None
        if drawn is not None:
            return f"{show(value)} is not in {drawn.distribution.describe()}; {show(used)} is used"
        if path in self.constants:
            return f"{show(value)} is left out, as the experiment fixes it at {show(used)}"
        if group:
            return f"{show(value)} is left out, as its condition does not hold"
        if path in self.merged:
            chooser = self.merged[path].path
            return f"{show(value)} is left out, as {chooser} decides; {show(used)} is used"
        return (
            f"{show(value)} is left out, as the experiment does not name it; {show(used)} is used"
        )

    def possible(self, path: str) -> _Items:
        """Returns what a leaf can be: distributions, and constants as 1-tuples (no value: none)."""
        if path not in self._possible:
            self._possible[path] = self._find_possible(path)
        return self._possible[path]

    def _find_possible(self, path: str) -> _Items:
        if path in self.constants:
            return [(self.constants[path],)]
        fallback: _Items = []
        if path in leaves() and leaves()[path].default is not MISSING:
            fallback = [(leaves()[path].default,)]
        if path in self.alternatives:
            group = self.alternatives[path]
            items: _Items = [p.distribution for p in group if p.name in self._reachable]
            if self._covered(group):
                return items
            other = next((p.otherwise for p in group if p.otherwise is not MISSING), MISSING)
            return items + (fallback if other is MISSING else [(other,)])
        if path in self.merged:
            merging = self.merged[path]
            items = []
            chosen = conditions.representatives(self.possible(merging.path), [])
            for name in chosen or [MISSING]:
                value = merging.merges.get(str(name), {}).get(path, MISSING)
                items += fallback if value is MISSING else [(value,)]
            if not self._covered(self.alternatives[merging.path]):
                items += fallback
            return items
        return fallback

    def exclusive(self, one: Parameter, other: Parameter) -> bool:
        """Returns whether some leaf in both conditions excludes that both hold."""
        for path in one.when.keys() & other.when.keys():
            pair = [one.when[path], other.when[path]]
            if not any(
                all(condition.holds(value) for condition in pair)
                for value in self._domain(path, pair)
            ):
                return True
        return one.name not in self._reachable or other.name not in self._reachable

    def _domain(self, path: str, asked: Sequence[Condition]) -> list[Any]:
        return conditions.representatives(self.possible(path), asked)

    def _covered(self, group: Sequence[Parameter]) -> bool:
        """Returns whether one of them is active, whatever values the others have."""
        if any(not parameter.when for parameter in group):
            return True
        paths = sorted({path for parameter in group for path in parameter.when})
        domains = [
            self._domain(path, [p.when[path] for p in group if path in p.when]) for path in paths
        ]
        if math.prod(len(domain) for domain in domains) > _MOST_COMBINATIONS:
            return False
        return all(
            any(
                all(condition.holds(case[path]) for path, condition in parameter.when.items())
                for parameter in group
            )
            for case in (
                dict(zip(paths, combination, strict=True))
                for combination in itertools.product(*domains)
            )
        )


def bounds(items: _Items) -> Any:
    """Summarises the result of `Space.possible`.

    Returns:
        ``(low, high)`` if there is a range and everything is a number, else a list of the
        values, or the value itself if there is only one.
    """
    found = ends(items)
    ranged = any(not isinstance(item, tuple | Categorical) for item in items)
    if ranged and all(is_number(value) for value in found):
        return min(found), max(found)
    return found[0] if len(found) == 1 else found


def ends(items: _Items) -> list[Any]:
    """Returns constants, choices and both ends of ranges, each once."""
    found: list[Any] = []
    for item in items:
        if isinstance(item, tuple):
            values: Sequence[Any] = item
        elif isinstance(item, Categorical):
            values = item.choices
        else:
            values = (item.low, item.high)
        found.extend(value for value in values if not any(same(value, old) for old in found))
    return found
