"""Words that leaves accept besides the values of their type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import core_schema

from gsfl_tune.plugins import Kind, names


@dataclass(frozen=True)
class Automatic:
    """Marks a number that may be ``auto``: it then follows from ``search.time_budget``.

    Attributes:
        value: Its value without a budget.
    """

    value: int


@dataclass(frozen=True)
class Named:
    """Marks a text as the name of an extension, built in or from a package.

    Attributes:
        kind: Kind of extension.
        prefix: What stands in front of every name.
    """

    kind: Kind
    prefix: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """Returns the names."""
        return tuple(self.prefix + name for name in names(self.kind))

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return {"enum": list(self.words), "type": "string"}

    def _known(self, value: str) -> str:
        if value not in self.words:
            raise ValueError(f"allowed {', '.join(self.words)}")
        return value
