"""The manifest of a synthesis: what was made, of what, and what was refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsfl_tune.data.synthetic import MANIFEST_FORMAT
from gsfl_tune.experiment.data_config import SYNTHETIC_MANIFEST
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import read_json, write_json
from gsfl_tune.run.layout import LOCK_FILE

# May grow in a resume: more images may be asked for, of which the first are the same.
_GROWS = "per_class"
# Manifests of older versions lack it, and say nothing of it.
_ADDED = "model.content"


@dataclass
class Manifest:
    """Holds the records of a folder of synthetic images.

    Attributes:
        folder: The folder.
        facts: What the images depend on: settings, data, model, bundle.
        records: A record for each image that was made, by class and number; those that were refused
            have no file.
        finished: Whether all that was asked for was made.
    """

    folder: Path
    facts: dict[str, Any]
    records: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    finished: bool = False

    @property
    def file(self) -> Path:
        """Returns its file."""
        return self.folder / SYNTHETIC_MANIFEST

    def write(self) -> None:
        """Writes the file.

        Raises:
            OSError: If it cannot be written.
        """
        content = {
            "format": MANIFEST_FORMAT,
            "finished": self.finished,
            **self.facts,
            # Not `images`: a file with that key is taken for COCO's.
            "records": [self.records[key] for key in sorted(self.records)],
        }
        write_json(self.file, content)

    def done(self, name: str, number: int) -> dict[str, Any] | None:
        """Returns the record of an image; None if it is not made, or its file is gone."""
        record = self.records.get((name, number))
        if record is None or record["file"] is None:
            return record
        return record if (self.folder / record["file"]).is_file() else None


def open_manifest(folder: Path, facts: dict[str, Any], *, resume: bool) -> Manifest:
    """Begins a manifest, or reads the one of a synthesis that is resumed.

    Args:
        folder: The folder.
        facts: What the images depend on.
        resume: Whether it is resumed.

    Raises:
        UserError: If there is none to resume, or it is of other images.
    """
    file = folder / SYNTHETIC_MANIFEST
    if not resume:
        return Manifest(folder, facts)
    try:
        known = read_json(file)
        records = {(each["class"], each["number"]): each for each in known["records"]}
        before = {name: known[name] for name in facts}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: cannot be read ({error!r}); remove {folder}") from error
    lines = [
        f"  {name}: was {then}, found {now}"
        for name, then, now in _differences(_flat(before), _flat(facts))
    ]
    asked, made = (each.get("settings", {}).get(_GROWS, 0) for each in (facts, before))
    if asked < made:
        # Images that are there would be used, and not be told.
        lines.append(f"  settings.{_GROWS}: was {made}, found {asked}, allowed as many or more")
    if lines:
        raise UserError(
            "\n".join([f"{folder}: this is not the synthesis that began there", *lines])
        )
    return Manifest(folder, facts, records)


def refuse_existing(folder: Path, *, resume: bool) -> None:
    """Refuses a folder with other content than a synthesis that is to be resumed.

    Raises:
        UserError: If the folder and ``--resume`` do not fit.
    """
    begun = (folder / SYNTHETIC_MANIFEST).exists()
    if resume and not begun:
        raise UserError(f"{folder}: found no synthesis to resume, allowed without --resume")
    if begun and not resume:
        raise UserError(
            f"{folder}: found a synthesis, allowed with --resume, or another -o; remove the "
            "directory to begin anew"
        )
    # An earlier attempt may have left its lock.
    if not begun and folder.exists() and (not folder.is_dir() or _others(folder)):
        raise UserError(f"{folder}: exists and is not an empty directory; choose another one")


def _others(folder: Path) -> bool:
    return any(each.name != LOCK_FILE for each in folder.iterdir())


def _flat(facts: dict[str, Any], start: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{start}{name}.")
        # Paths are for people: the same files may lie elsewhere.
        elif name not in (_GROWS, "path", "gsfl_tune"):
            found[start + name] = value
    return found


def _differences(then: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [
        (name, then.get(name, "nothing"), now.get(name, "nothing"))
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name) and not (name == _ADDED and name not in then)
    ]
