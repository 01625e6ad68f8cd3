"""Recognises public data sets, and exports of programs, by their files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gsfl_tune.data.sources.arrow import is_saved
from gsfl_tune.data.sources.fiftyone import is_export
from gsfl_tune.data.sources.inaturalist import MINI, SPECIES, TRAIN, VALIDATION


@dataclass(frozen=True)
class Layout:
    """Describes a data set that class folders alone do not describe.

    Attributes:
        source: Value of ``data.source``; empty if no source reads it as it is.
        text: Description of the folder, for messages.
        marks: Files and folders (or patterns) in its root or in the folder `inside`.
        inside: Folder name in its archive.
        advice: What to do where no source reads it; ``{place}`` is its folder.
        unless: Files (a pattern) in its root with which another source reads it.
    """

    source: str
    text: str
    marks: tuple[str, ...]
    inside: str
    advice: str = ""
    unless: str = ""

    @property
    def told(self) -> str:
        """Returns what the folder is and what to do."""
        return f"{self.text}; {self.advice or f'set data.source: {self.source}'}"


LAYOUTS = (
    # Before CUB, which has a list with the same name.
    Layout("nabirds", "the layout of NABirds", ("images.txt", "hierarchy.txt"), "nabirds"),
    Layout(
        "cub",
        "the layout of CUB-200-2011",
        ("images.txt",),
        "CUB_200_2011",
    ),
    Layout(
        "aircraft",
        "the layout of FGVC-Aircraft",
        ("data/variants.txt", "data/images"),
        "fgvc-aircraft-2013b",
    ),
    Layout(
        "flowers102",
        "the layout of Oxford 102 Flowers",
        ("jpg", "imagelabels.mat", "setid.mat"),
        "flowers-102",
    ),
    Layout(
        "pets",
        "the layout of Oxford-IIIT Pet",
        ("images", "annotations/trainval.txt", "annotations/test.txt"),
        "oxford-iiit-pet",
    ),
    Layout(
        "cars",
        "the layout of Stanford Cars",
        ("devkit/cars_meta.mat", "cars_train"),
        "stanford_cars",
    ),
    Layout(
        "dogs", "the layout of Stanford Dogs", ("Images", "lists/train_list.mat"), "stanford_dogs"
    ),
    Layout("dogs", "the layout of Stanford Dogs", ("Images", "train_list.mat"), "stanford_dogs"),
    Layout(
        "food101",
        "the layout of Food-101",
        ("images", "meta/classes.txt", "meta/train.txt"),
        "food-101",
    ),
    Layout(
        "cars", "the first layout of Stanford Cars", ("cars_annos.mat", "car_ims"), "stanford_cars"
    ),
    *(
        Layout(
            "dtd", "the layout of DTD (Describable Textures)", ("images", "labels/train1.txt"), name
        )
        for name in ("dtd/dtd", "dtd")
    ),
    *(
        Layout("gtsrb", "the layout of GTSRB", (f"GTSRB/{name}",), "gtsrb")
        for name in ("Training", "Final_Training/Images")
    ),
    *(
        Layout("inaturalist", "the layout of iNaturalist 2021", (f"{part}/{SPECIES}",), "")
        for part in (*TRAIN, *MINI, *VALIDATION, ".")
    ),
)


# Years, the folder of plants, and names of the folder in torchvision and in the archive.
INATURALIST = (
    ("2017", "Plantae", ("2017", "train_val_images")),
    ("2018", "Plantae", ("2018", "train_val2018")),
    ("2019", "Plants", ("2019", "train_val2019")),
)
_BY_PATH = "set data.path: {place}%s, data.source: folder and data.classes: path; %s"
_ARRAYS = (
    "its images are numbers in few files; a copy in Parquet is read as it is (data.source: parquet)"
)
# Layouts of torchvision that would be read as other classes, or not at all.
UNREAD = (
    Layout(
        "",
        "the layout of Caltech-101",
        ("101_ObjectCategories",),
        "caltech101",
        "set data.path: {place}/101_ObjectCategories, and move BACKGROUND_Google out of it, "
        "which is no class",
    ),
    Layout(
        "",
        "the layout of Caltech-256",
        ("256_ObjectCategories",),
        "caltech256",
        "set data.path: {place}/256_ObjectCategories (257.clutter holds things of no class)",
    ),
    Layout(
        "",
        "the layout of EuroSAT",
        ("2750/AnnualCrop",),
        "eurosat",
        "set data.path: {place}/2750",
    ),
    Layout(
        "",
        "the layout of SUN397",
        ("ClassName.txt", "a/abbey"),
        "SUN397",
        _BY_PATH % ("", "its folders are letters, and classes are below them"),
    ),
    Layout(
        "",
        "the layout of Places365",
        ("categories_places365.txt",),
        "",
        _BY_PATH
        % (
            "/data_256_standard (or data_large_standard)",
            "its validation images lie in one folder, and places365_val.txt tells their classes",
        ),
    ),
    Layout(
        "",
        "the layout of Omniglot",
        ("images_background",),
        "omniglot-py",
        _BY_PATH % ("/images_background", "a character is a class, an alphabet its group"),
    ),
    Layout(
        "",
        "the layout of Labeled Faces in the Wild",
        ("lfw-names.txt",),
        "lfw-py",
        "set data.path to one of its folders of images, such as {place}/lfw_funneled; most people "
        "have one image, which cannot be trained and tested on",
    ),
    Layout(
        "",
        "the layout of CelebA",
        ("list_attr_celeba.txt",),
        "celeba",
        "it has forty attributes and no classes: write one of them into a CSV file with the "
        "columns file_name, label and split",
    ),
    Layout(
        "",
        "the layout of Pascal VOC",
        ("JPEGImages", "Annotations", "ImageSets"),
        "VOCdevkit/*",
        "its images hold several objects with boxes: convert it to COCO's JSON, and set "
        "data.crop: box",
    ),
    Layout("", "the layout of CIFAR-10", ("data_batch_1",), "cifar-10-batches-py", _ARRAYS),
    Layout("", "the layout of CIFAR-100", ("cifar-100-python/train",), "", _ARRAYS),
    *(
        Layout("", f"the layout of {name}", (f"raw/{begin}images-idx3-ubyte*",), name, _ARRAYS)
        for name, begin in (
            ("MNIST", "train-"),
            ("FashionMNIST", "train-"),
            ("KMNIST", "train-"),
            ("QMNIST", "[qx]*nist-*"),
            ("EMNIST", "emnist-*"),
        )
    ),
    Layout("", "the layout of SVHN", ("train_32x32.mat",), "", _ARRAYS),
    Layout("", "the layout of STL-10", ("train_X.bin",), "stl10_binary", _ARRAYS),
    Layout("", "the layout of PCAM", ("camelyonpatch_level_2_split_*_x.h5",), "pcam", _ARRAYS),
    Layout("", "the layout of SEMEION", ("semeion.data",), "", _ARRAYS),
    Layout("", "the layout of USPS", ("usps*.bz2",), "", _ARRAYS),
    *(
        Layout("", "the layout of FER2013", marks, inside, _ARRAYS, unless="train/*/*")
        for marks, inside in (
            (("fer2013.csv",), "fer2013"),
            (("icml_face_data.csv",), "fer2013"),
            # Names that other tables have too.
            (("fer2013/train.csv", "fer2013/test.csv"), ""),
        )
    ),
    Layout(
        "",
        "the layout of LSUN",
        ("*_lmdb/data.mdb",),
        "",
        "its images are in LMDB databases: write them into a folder for each class, or a copy in "
        "Parquet (data.source: parquet)",
    ),
    *(
        Layout(
            "",
            f"the layout of iNaturalist {year}",
            (f"{folder}/Fungi/*/*", f"{folder}/{plants}/*/*"),
            "",
            f"set data.path: {{place}}/{folder}, data.source: folder and data.classes: leaf; the "
            "folder above a species is its group. With the lists of the competition beside it "
            f"(train{year}.json, val{year}.json), data.source: coco reads the official parts",
            "*.json",
        )
        for year, plants, folders in INATURALIST
        for folder in folders
    ),
)


def known_layout(root: Path) -> Layout | None:
    """Returns the data set in a folder, or in its archive's folder there."""
    for layout in (*LAYOUTS, *UNREAD):
        inside = sorted(root.glob(layout.inside)) if layout.inside else []
        for place in (root, *inside):
            if layout.unless and any(place.glob(layout.unless)):
                continue
            if all(_is_there(place, mark) for mark in layout.marks):
                return replace(layout, advice=layout.advice.format(place=place))
    if is_saved(root):
        return Layout("arrow", "a dataset that the datasets library saved", (), "")
    if is_export(root):
        return Layout("fiftyone", "a dataset that FiftyOne exported", (), "")
    return None


def species_below(root: Path) -> str:
    """Returns what a folder is whose uppermost folders are classes, but hold finer ones.

    Returns:
        A description; empty if it is unknown.
    """
    for plants in dict.fromkeys(plants for _, plants, _ in INATURALIST):
        if all(_is_there(root, f"{name}/*/*") for name in ("Fungi", plants)):
            return "the layout of iNaturalist 2017 to 2019"
    return ""


def _is_there(place: Path, mark: str) -> bool:
    return any(place.glob(mark)) if "*" in mark else (place / mark).exists()
