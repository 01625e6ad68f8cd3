"""Section ``data`` of an experiment file: which images, and how they are read and changed."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field

from gsfl_tune.experiment.added_config import AugmentTransformsConfig
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.names import Named
from gsfl_tune.experiment.section import Fraction, Section
from gsfl_tune.plugins import plugins

# Suffixes of files of `class_text` with embeddings; others have texts.
EMBEDDINGS = (".npy", ".safetensors", ".parquet")
# Name of the file that lists the images of a folder of `gsfl-tune synthesize`.
SYNTHETIC_MANIFEST = "synthetic.json"


class SplitConfig(Section):
    """How images are divided where the source has no split of its own."""

    validation: Annotated[float, Field(gt=0.0, lt=1.0)] | Literal["given", "resplit"] = Field(
        0.2,
        description="Share of the training images held out for validation where the source has no "
        "such part; `given`: the source must have one; `resplit`: the source's part joins the "
        "training images, and a fifth of all is held out.",
    )
    test: float = Field(
        0.2, gt=0.0, lt=1.0, description="Share of all images kept for the final test."
    )
    by: Literal["auto", "image", "group", "near_duplicate", "time", "folder"] = Field(
        "auto",
        description="Unit that is held out as a whole: single images; images of one group "
        "(`data.group_column`), cluster of similar photographs, burst (EXIF time, numbers "
        "of a camera), or folder. `auto` tests whether single images would be too similar.",
    )
    together: str | None = Field(
        None,
        description="CSV file of images that no split divides, with the columns `path` and `set`, "
        "such as the `together.csv` of `gsfl-tune data --issues`: copies that only the features of "
        "a backbone show.",
    )
    seed: int = Field(0, ge=0, description="Seed of the stratified split.")

    @property
    def validation_share(self) -> float:
        """Returns the share of training images to hold out if there is no validation part."""
        return 0.2 if isinstance(self.validation, str) else self.validation


class AugmentConfig(Section):
    """Random changes of training images: in the finetune stage, and of fixed views."""

    scale: float = Field(
        0.35, gt=0.0, le=1.0, description="Smallest area of a random crop, as a share of the image."
    )
    ratio: float = Field(
        1.33,
        ge=1.0,
        le=4.0,
        description="Largest aspect ratio of a random crop (and 1 / smallest).",
    )
    flip: bool = Field(True, description="Mirror half of the images left to right.")
    color: Fraction = Field(
        0.0, description="Strength of brightness, contrast and saturation jitter."
    )
    policy: Literal["none", "trivial", "rand"] = Field(
        "none",
        description="`trivial`: TrivialAugment, one operation of 14 at a random strength; some of "
        "them move the image far. `rand`: RandAugment, several of them at one strength.",
    )
    rand_operations: int = Field(
        2, ge=1, le=14, description="Operations of an image in `policy: rand`, one after the other."
    )
    rand_magnitude: int = Field(
        9, ge=0, le=30, description="Strength of all operations in `policy: rand`."
    )
    degrade: Fraction = Field(
        0.0,
        description="Share of images that are made smaller, compressed as JPEG and made as large "
        "again.",
    )
    restorer: str | None = Field(
        None,
        description="File of a super-resolution network that makes images of `degrade` large again "
        "(safetensors or a state dict that spandrel knows, extra `super-resolution`); null: "
        "Lanczos.",
    )
    erasing: Fraction = Field(
        0.0, description="Share of images in which a random rectangle is erased."
    )

    transforms: AugmentTransformsConfig = Field(
        default_factory=AugmentTransformsConfig,
        description="Strengths of transforms that installed packages add (docs/extending.md).",
    )

    def recipe(self) -> dict[str, Any]:
        """Returns the settings with an effect, by name: part of the keys of cached data.

        Raises:
            UserError: If the file of a restorer cannot be read.
        """
        off = {"policy": "none", "erasing": 0.0, "degrade": 0.0}
        left = {"transforms", "restorer"}
        if self.policy != "rand":
            left |= {"rand_operations", "rand_magnitude"}
        settings = self.model_dump(exclude=left)
        kept = {name: value for name, value in settings.items() if off.get(name) != value}
        if self.restorer is not None and self.degrade > 0:
            kept["restorer"] = _content(self.restorer)
        for name, strength in self.transforms.model_dump().items():
            if strength:  # another version of the package may give other images
                kept[f"transforms.{name}"] = (strength, plugins("transform")[name].package)
        return kept


def _content(path: str) -> str:
    """Returns a digest of a restorer's file, which is read again once it has changed.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        status = os.stat(path)
        return _digest(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UserError(
            f"data.augment.restorer: {path} cannot be read ({error.strerror}); allowed a file of "
            "weights, or null"
        ) from error


@lru_cache(maxsize=4)
def _digest(path: str, changed: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class TypefacesConfig(Section):
    """Size of the embedded data set (`data.source: typefaces`)."""

    train: int = Field(
        40, ge=2, description="Training images per class, before validation is split off."
    )
    test: int = Field(20, ge=1, description="Test images per class.")
    size: int = Field(128, ge=32, le=1024, description="Rendered side in pixels.")
    seed: int = Field(0, ge=0, description="Seed of the rendering.")


class DataConfig(Section):
    """The images: their source, split, decoding and augmentation."""

    source: Annotated[str, Named("source")] = Field(
        "auto", description="Source of the images; `auto` detects it from the content of `path`."
    )
    path: str | list[str] | None = Field(
        None,
        description="Folder, table(s), other file(s), pattern or URL of the images, from the "
        "current directory.",
    )
    classes: Literal["top", "leaf", "path"] = Field(
        "top",
        description="`folder`: which folder is the class: the uppermost, the one that holds the "
        "image (`leaf`), or all of them joined by / (`path`).",
    )
    config: str | None = Field(
        None,
        description="`parquet`, `webdataset`: which of several configurations (folders) to read.",
    )
    image_column: str | None = Field(
        None,
        description="Name of the column of images; `webdataset`: their suffix (`jpg`); found where "
        "there is one.",
    )
    label_column: str | None = Field(
        None,
        description="Name of the column of labels; `webdataset`: their suffix (`cls`), or a key of "
        "the `.json`; found where there is one.",
    )
    group_column: str | None = Field(
        None,
        description="Name of the column of what an image belongs to (an animal, a place), for "
        "`data.split.by`.",
    )
    split_column: str | None = Field(
        None, description="Name of the column that tells the part; found where it is called so."
    )
    box_columns: list[str] | None = Field(
        None,
        description="Names of the four columns of boxes, or of one that holds a list of four "
        "numbers; found where they are called so.",
    )
    box_format: Literal["auto", "xywh", "xyxy"] = Field(
        "auto",
        description="Content of `box_columns`, in pixels: corner and size, or two corners; `auto` "
        "decides by their names.",
    )
    point_columns: list[str] | None = Field(
        None,
        description="Names of parts: of `beak`, the columns `beak_x` and `beak_y` hold the point "
        "in pixels; an empty cell means that the part is not visible.",
    )
    attribute_columns: list[str] | None = Field(
        None,
        description="Names of columns of attributes: numbers, or true and false; an empty cell "
        "means unknown.",
    )
    root: str | None = Field(
        None,
        description="Folder that the paths in a table start from; default: the table's own, or the "
        "one beside it that has the images.",
    )
    crop: Literal["none", "box"] = Field(
        "none", description="Whole images, or every box as an image of its own."
    )
    crop_margin: float = Field(
        0.1,
        ge=0.0,
        le=2.0,
        description="Margin added at both ends of each side of a box, as a share of the side; it "
        "ends at the border of the image.",
    )
    download: bool = Field(False, description="Let torchvision download the data set into `path`.")
    exclude: str | None = Field(
        None,
        description="Text file of images that are left out, one path per line, such as the "
        "`exclude.txt` of `gsfl-tune data --issues`; a line that begins with # is a comment.",
    )
    class_text: str | None = Field(
        None,
        description="File with a description of every class: CSV or TSV with the columns `class` "
        "and `text`, or a JSON object of them; or with their embeddings (`.npy`, `.safetensors`, "
        "`.parquet`).",
    )
    text_model: str | None = Field(
        None,
        description="Name of a model of open_clip whose text tower embeds the texts of "
        "`class_text` (extra `text`).",
    )
    text_weights: str | None = Field(
        None, description="File of the weights of `text_model`; nothing is downloaded."
    )
    shots: int | None = Field(
        None,
        ge=1,
        description="Train on only this many images of each class (chosen by `data.split.seed`); "
        "validation and test parts stay whole, and a final retrain leaves validation images out.",
    )
    unlabelled: str | list[str] | None = Field(
        None,
        description="Folder, pattern, or Parquet file(s) of images without labels, for "
        "`training.method: fixmatch` and `pretrain`; copies of validation and test images are left "
        "out.",
    )
    synthetic: str | list[str] | None = Field(
        None,
        description="Folder(s) that `gsfl-tune synthesize` wrote: their images join the training "
        "part, without those that were made from images of another part.",
    )
    image_size: int = Field(
        224, ge=16, le=1024, description="Side in pixels that the backbone sees."
    )
    eval_image_size: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="Side in pixels that a finetuned network sees in validation, test and use; "
        "null: `image_size`. Random crops enlarge what they show, so a larger side fits better.",
    )
    fit: Literal["crop", "pad", "squash"] = Field(
        "crop", description="How an image becomes a square: cut the longer side, pad, or squash."
    )
    split: SplitConfig = Field(default_factory=SplitConfig, description="Shares and seed.")
    augment: AugmentConfig = Field(
        default_factory=AugmentConfig,
        description="Augmentation of the finetune stage and of `views`.",
    )
    views: int = Field(
        0,
        ge=0,
        le=1000,
        description="Fixed augmented views of every training image, computed once; 0: the head "
        "stage sees images without augmentation, the finetune stage augments in every epoch.",
    )
    value_range: list[float] | None = Field(
        None,
        description="Values [black, white] of grey images of 16 or 32 bits or floats; by default "
        "0 to 65535 for 16 bits, and one range for all others, from what the images hold.",
    )
    max_pixels: int = Field(
        200_000_000, ge=1, description="Width times height above which an image counts as broken."
    )
    truncated: Literal["skip", "accept"] = Field(
        "skip", description="Images with a missing end: broken, or read as far as possible."
    )
    max_broken: Fraction = Field(
        0.01, description="Share of unreadable images above which the data is refused."
    )
    typefaces: TypefacesConfig = Field(
        default_factory=TypefacesConfig, description="Size of the embedded data set."
    )

    @property
    def largest_image_size(self) -> int:
        """Returns the larger of both image sizes, in pixels."""
        return max(self.image_size, self.eval_image_size or 0)
