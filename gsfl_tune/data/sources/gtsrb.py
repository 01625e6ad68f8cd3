"""The German Traffic Sign Recognition Benchmark in torchvision's layout."""

from __future__ import annotations

import csv
from pathlib import Path

from gsfl_tune.data.sources._base import some
from gsfl_tune.data.sources._benchmark import BenchmarkSource
from gsfl_tune.data.sources._walk import walk
from gsfl_tune.experiment.errors import UserError

_TEST = ("GTSRB/Final_Test/Images", "GT-final_test.csv")
# Of torchvision's archive, and of the older official one.
_TRAINING = ("GTSRB/Training", "GTSRB/Final_Training/Images")


class GTSRBSource(BenchmarkSource):
    """Reads 43 traffic signs, with the official train and test parts.

    A training image is a frame of a drive towards a sign: ``00003_00012.ppm`` is the twelfth of the
    third sign of its class. The frames of a sign are a group.
    """

    folder = "gtsrb"
    torchvision_name = "GTSRB"
    splits = ("train", "test")
    needed = (_TRAINING[0], *_TEST)
    help = (
        "Set data.download: true (360 MB), or unpack GTSRB-Training_fixed.zip, "
        "GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip of "
        "https://benchmark.ini.rub.de there."
    )

    def _needed(self, root: Path) -> tuple[str, ...]:
        older = not (root / _TRAINING[0]).exists() and (root / _TRAINING[1]).exists()
        return (_TRAINING[older], *_TEST)

    def _list(self) -> None:
        training, images, table = (self.root / name for name in self._needed(self.root))
        listing = walk(training)
        # A list of boxes is in every folder of a class.
        self.left_out = listing.left_out
        self.classes = sorted({found.folders[0] for found in listing.images if found.folders})
        label = {name: number for number, name in enumerate(self.classes)}
        for found in listing.images:
            if len(found.folders) == 1:
                sign = found.file.stem.partition("_")[0]
                name = found.folders[0]
                self.add(found.file, label[name], "train", found.stamp, group=f"{name}/{sign}")
        unknown: set[str] = set()
        try:
            with table.open(encoding="utf-8", newline="") as stream:
                for row in csv.DictReader(stream, delimiter=";", skipinitialspace=True):
                    name = f"{int(row['ClassId']):05d}"
                    if name in label:
                        self.add(images / row["Filename"], label[name], "test")
                    else:
                        unknown.add(name)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{table}: expected the columns Filename and ClassId, separated by `;`: {error!r}"
            ) from error
        if unknown:
            self.problems.append(
                f"{table}: classes that {training} does not have: {some(sorted(unknown))}"
            )
