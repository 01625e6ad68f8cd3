"""Common code of the benchmarks that torchvision downloads."""

from __future__ import annotations

from pathlib import Path

from gsfl_tune.activity import activity
from gsfl_tune.data.image_file import Box
from gsfl_tune.data.sources._base import FileSource, Part, expand, local_directory
from gsfl_tune.experiment.errors import UserError


class BenchmarkSource(FileSource):
    """Finds the folder of a benchmark, downloading it if wanted.

    Attributes:
        folder: The folder that torchvision makes.
        torchvision_name: Name of torchvision's class.
        splits: Values of its argument ``split`` whose files it downloads one by one, if any.
        needed: Files and folders in `folder`.
        help: What to do without them.
    """

    folder: str
    torchvision_name: str
    splits: tuple[str, ...] = ()
    needed: tuple[str, ...]
    help: str

    def __init__(self, path: str | list[str] | None, *, download: bool = False) -> None:
        super().__init__()
        what = f"the folder that holds {self.folder}/"
        if download and isinstance(path, str):
            root = Path(expand(path))
            if not self._complete(root / self.folder):
                self._download(root)
        elif path is not None and isinstance(path, str) and not Path(expand(path)).exists():
            raise UserError(
                f"data.path: {expand(path)} does not exist (looked in {Path.cwd()}). {self.help}"
            )
        root = local_directory(path, what)
        # Users name either folder.
        places = (root / self.folder, root / Path(self.folder).name, root)
        self.root = next((place for place in places if self._complete(place)), places[0])
        missing = [name for name in self._needed(self.root) if not (self.root / name).exists()]
        if missing:
            raise UserError(f"data.path: {self.root} has no {', '.join(missing)}. {self.help}")
        self._list()

    def _needed(self, root: Path) -> tuple[str, ...]:
        """Returns the files and folders that a folder needs; default: `needed`."""
        return self.needed

    def _complete(self, root: Path) -> bool:
        return all((root / name).exists() for name in self._needed(root))

    def _download(self, root: Path) -> None:
        import torchvision.datasets

        root.mkdir(parents=True, exist_ok=True)
        try:
            make = getattr(torchvision.datasets, self.torchvision_name)
            with activity(f"downloading {self.torchvision_name}"):
                for split in self.splits:
                    make(str(root), split, download=True)
                if not self.splits:
                    make(str(root), download=True)
        except Exception as error:
            raise UserError(
                f"data.download: {self.torchvision_name} could not be downloaded into {root}: "
                f"{error}"
            ) from error

    def _list(self) -> None:
        raise NotImplementedError

    def _add_labelled(self, file: Path, label: int, part: Part, box: Box | None = None) -> None:
        if 0 <= label < len(self.classes):
            self.add(file, label, part, box=box)
        else:
            self.problems.append(
                f"{file}: label {label + 1} is outside the {len(self.classes)} classes"
            )
