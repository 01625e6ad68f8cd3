"""The leaves of an experiment, collected from the models of `config`."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache, cached_property
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.names import Automatic, Named
from gsfl_tune.experiment.section import Section


class _Missing(Enum):
    # An enum member stays the same object through pickle and copy.
    MISSING = "missing"


MISSING: Any = _Missing.MISSING
"""Marks a missing value, where None is a valid value."""

_NEVER_SEARCHED = {
    "name": "it names the experiment",
    "storage": "all trials of a run are kept in one place",
    "model.licenses": "what may be used is the same for all trials",
    "training.seed": "seeds belong to the protocol (search.final_seeds)",
    "pretrain.seed": "seeds belong to the protocol (search.final_seeds)",
    "pretrain.evaluate_every": "it changes nothing of the result",
}
_SEARCHED_DATA = ("data.image_size", "data.eval_image_size", "data.fit")


@dataclass(frozen=True)
class Leaf:
    """Describes one key that holds a value, not a section.

    Attributes:
        path: Dotted path.
        field: The pydantic field.
    """

    path: str
    field: FieldInfo

    @property
    def required(self) -> bool:
        """Returns whether the file must give it."""
        return self.field.is_required()

    @cached_property
    def default(self) -> Any:
        """Returns the schema default, `MISSING` where there is none."""
        if self.required:
            return MISSING
        return self.field.get_default(call_default_factory=True)

    @property
    def takes_list(self) -> bool:
        """Returns whether a plain list is a value of this leaf."""
        return _takes_list(self.field.annotation)

    @cached_property
    def annotation(self) -> Any:
        """Returns the type with its constraints."""
        metadata = tuple(self.field.metadata)
        return Annotated[(self.field.annotation, *metadata)] if metadata else self.field.annotation

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        return TypeAdapter(self.annotation, config=ConfigDict(allow_inf_nan=False))

    @cached_property
    def allowed(self) -> str:
        """Describes the allowed values."""
        return _allowed(self.annotation)

    def accepts(self, value: Any) -> bool:
        """Returns whether the value is of the field's type and within its bounds."""
        if isinstance(value, bool) and not _takes_bool(self.field.annotation):
            return False
        try:
            self._adapter.validate_python(value, strict=True)
        except ValidationError:
            return False
        return True

    def complaint(self, value: Any) -> str | None:
        """Returns ``found X, allowed Y``, or None for a valid value."""
        if self.accepts(value):
            return None
        return f"found {show(value)}, allowed {self.allowed}{_suggestion(self.annotation, value)}"

    @property
    def not_searched(self) -> str | None:
        """Returns why this leaf cannot be a distribution, None where it can."""
        if self.path in _NEVER_SEARCHED:
            return _NEVER_SEARCHED[self.path]
        if self.path.startswith("search."):
            return "the section `search` says how trials are compared"
        if self.path.startswith("data."):
            searched = self.path in _SEARCHED_DATA or self.path.startswith("data.augment.")
            if not searched:
                return (
                    "all trials must be compared on the same images (of `data`, only "
                    "data.image_size, data.eval_image_size, data.fit and data.augment.* can be "
                    "searched)"
                )
        return None

    @property
    def numeric(self) -> bool:
        """Returns whether it can hold a number."""
        return self.accepts(1) or self.accepts(0.5) or self.accepts(64)


@cache
def leaves() -> dict[str, Leaf]:
    """Returns every leaf by dotted path, in the order of the models."""
    found: dict[str, Leaf] = {}
    for prefix, model in sections().items():
        for key, field in model.model_fields.items():
            path = f"{prefix}.{key}" if prefix else key
            if path not in sections():
                found[path] = Leaf(path, field)
    return found


@cache
def sections() -> dict[str, type[Section]]:
    """Returns every section by dotted path; the root is the empty path."""
    found: dict[str, type[Section]] = {}

    def walk(prefix: str, model: type[Section]) -> None:
        found[prefix] = model
        for key, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
                walk(f"{prefix}.{key}" if prefix else key, field.annotation)

    walk("", Config)
    return found


def keys_of(section: str) -> str:
    """Lists the keys of a section, for messages."""
    return ", ".join(sections()[section].model_fields) or "none: no installed package adds any"


def did_you_mean(path: str, also: Iterable[str] = ()) -> str:
    """Returns ``; did you mean X?`` for an unknown path, or an empty string.

    Args:
        path: The unknown path.
        also: Valid paths besides the schema (names of mapping choices).
    """
    known = [*leaves(), *(section for section in sections() if section), *also]
    prefix, _, key = path.rpartition(".")
    siblings = [item for item in known if item.rpartition(".")[0] == prefix]
    near = difflib.get_close_matches(path, siblings, n=1, cutoff=0.75)
    if not near:
        by_key = [item for item in known if item.rpartition(".")[2] == key]
        near = sorted(by_key, key=lambda item: -_likeness(path, item))[:1]
    if not near:
        near = difflib.get_close_matches(path, known, n=1, cutoff=0.6)
    if not near:
        last = {item.rpartition(".")[2]: item for item in reversed(known)}
        near = [last[word] for word in difflib.get_close_matches(key, last, n=1, cutoff=0.7)]
    return f"; did you mean {near[0]}?" if near else ""


def nearest(word: Any, known: Iterable[str]) -> str:
    """Returns ``; did you mean X?`` for an unknown word, or an empty string."""
    near = difflib.get_close_matches(str(word), [str(item) for item in known], n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def show(value: Any) -> str:
    """Formats a value for a message."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        text = value if len(value) <= 60 else value[:57] + "..."
        return f"'{text}'"
    return f"{value}"


def number(value: float) -> str:
    """Formats a number for people."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _parts(annotation: Any) -> list[Any]:
    """Returns the members of a union, with the constraints of the whole passed to each."""
    metadata: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *rest = get_args(annotation)
        metadata = tuple(rest)
    if get_origin(annotation) in (Union, types.UnionType):
        members = [part for item in get_args(annotation) for part in _parts(item)]
    else:
        members = [annotation]
    return [Annotated[(member, *metadata)] if metadata else member for member in members]


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _takes_list(annotation: Any) -> bool:
    return any(get_origin(_bare(part)) is list for part in _parts(annotation))


def _takes_bool(annotation: Any) -> bool:
    return any(_bare(part) is bool for part in _parts(annotation))


def _words(annotation: Any) -> list[str]:
    words: list[str] = []
    for part in _parts(annotation):
        if get_origin(_bare(part)) is Literal:
            words += map(str, get_args(_bare(part)))
        elif _bare(part) is str:
            words += _named(part)
    return words


def _named(part: Any) -> list[str]:
    """Returns the names that a text may be, if it is a name."""
    metadata = get_args(part)[1:] if get_origin(part) is Annotated else ()
    return [word for item in _flat(metadata) if isinstance(item, Named) for word in item.words]


def _suggestion(annotation: Any, value: Any) -> str:
    return nearest(value, _words(annotation)) if isinstance(value, str) else ""


def _allowed(annotation: Any) -> str:
    words = [_allowed_part(part) for part in _parts(annotation)]
    return " or ".join(word for word in words if word)


def _allowed_part(annotation: Any) -> str:
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    bare = _bare(annotation)
    if bare is type(None):
        return "null"
    if get_origin(bare) is Literal:
        return ", ".join(str(word) for word in get_args(bare))
    if get_origin(bare) is list:
        return f"a list{_items(bare)}"
    if bare is bool:
        return "true or false"
    if bare is str and _named(annotation):
        return ", ".join(_named(annotation))
    if bare is str:
        described = [each.description for each in metadata if isinstance(each, FieldInfo)]
        if described and described[0]:
            return str(described[0])
        pattern = [item.pattern for item in _flat(metadata) if getattr(item, "pattern", None)]
        return f"text matching {pattern[0]}" if pattern else "text"
    noun = "an integer" if bare is int else "a number"
    bounds = []
    for item in _flat(metadata):
        if isinstance(item, Ge):
            bounds.append(f"at least {item.ge:g}")
        elif isinstance(item, Gt):
            bounds.append(f"above {item.gt:g}")
        elif isinstance(item, Le):
            bounds.append(f"at most {item.le:g}")
        elif isinstance(item, Lt):
            bounds.append(f"below {item.lt:g}")
    automatic = any(isinstance(item, Automatic) for item in _flat(metadata))
    words = f"{noun} {' and '.join(bounds)}" if bounds else noun
    return f"{words} or auto" if automatic else words


def _items(annotation: Any) -> str:
    """Returns what a list holds, such as `` of mappings``; empty where it may hold anything."""
    nouns = {dict: "mappings", str: "texts", int: "integers", float: "numbers"}
    found = [nouns.get(get_origin(item) or item) for item in map(_bare, get_args(annotation))]
    return f" of {found[0]}" if len(found) == 1 and found[0] else ""


def _flat(metadata: Iterable[Any]) -> Iterable[Any]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from item.metadata
        else:
            yield item
