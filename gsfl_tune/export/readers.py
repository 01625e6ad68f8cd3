"""Programs that use an exported file without this package, for the card of an export."""

from __future__ import annotations

_OPENED = """\
side = preprocessing["side"]
image = ImageOps.exif_transpose(Image.open("image.jpg"))
"""

_SIXTEEN_BITS = """\
if image.mode.startswith("I;16"):  # 16-bit grey
    image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
"""

# Equals `gsfl_tune.data.load_image` with the range of the run.
_RANGED = """\
if image.mode[0] in "IF":  # deep grey: 16 or 32 bits
    known = (0, 65535) if image.mode.startswith("I;16") else preprocessing["float_range"]
    low, high = preprocessing["value_range"] or known
    values = np.nan_to_num(np.asarray(image).astype(np.float64), nan=0, posinf=0, neginf=0)
    values = np.rint((values - low) * (255 / (high - low)))
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
"""

_RGB = """\
if image.has_transparency_data:  # as in training: on white
    image = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
image = image.convert("RGB")
"""

# Equals `gsfl_tune.data.square` pixel for pixel: `ImageOps.pad` would put images with an odd
# margin a pixel further down or to the right.
_PAD = """\
scale = side / max(image.size)
image = image.resize([max(1, round(n * scale)) for n in image.size], Image.Resampling.BICUBIC)
canvas = Image.new("RGB", (side, side), (124, 116, 104))
canvas.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
square = np.asarray(canvas)
"""

_FITS = {
    "crop": "square = np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC))\n",
    "pad": _PAD,
    "squash": "square = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))\n",
}

_NORMALISED = """\
size, mean, std = (np.array(preprocessing[k], np.float32) for k in ("image_size", "mean", "std"))
whole = (int(size) * 115 + 99) // 100  # the centre of 1.15 times the size
start, size = (whole - int(size)) // 2, int(size)
square = np.asarray(Image.fromarray(square).resize((whole, whole), Image.Resampling.BICUBIC))
images = (square[start : start + size, start : start + size] / np.float32(255) - mean) / std
images = np.ascontiguousarray(images.transpose(2, 0, 1)[None], dtype=np.float32)
"""

_ONNX = """\
import json
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession("model.onnx")
about = session.get_modelmeta().custom_metadata_map
classes, preprocessing = json.loads(about["classes"]), json.loads(about["preprocessing"])
"""

_PROGRAM = """\
import json
import numpy as np
import torch
from PIL import Image, ImageOps

about = {"metadata.json": ""}
model = torch.export.load("model.pt2", extra_files=about).module()
about = json.loads(about["metadata.json"])
classes, preprocessing = about["classes"], about["preprocessing"]
"""


_OPENVINO = """\
import json
import numpy as np
import openvino
from PIL import Image, ImageOps

model = openvino.Core().read_model("model.xml")
about = {k: model.get_rt_info(["gsfl_tune", k]).value for k in ("classes", "preprocessing")}
classes, preprocessing = json.loads(about["classes"]), json.loads(about["preprocessing"])
session = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
"""

_HEADS = {"onnx": _ONNX, "torch-export": _PROGRAM, "openvino": _OPENVINO}


def reader(
    format: str,
    *,
    preprocess: bool,
    fit: str = "crop",
    quantised: bool = False,
    ranged: bool = False,
) -> str:
    """Returns a program that prints the class of ``image.jpg``.

    Args:
        format: ``onnx``, ``torch-export`` or ``openvino``.
        preprocess: Whether the file does the preprocessing itself.
        fit: How an image becomes a square.
        quantised: Whether a ``.pt2`` file holds int8 operations.
        ranged: Whether the preprocessing says which values of deep grey images are black and white.
    """
    head = _HEADS[format]
    if format == "torch-export" and quantised:
        head = head.replace("import torch\n", "import torch\nimport torchao.quantization.pt2e\n")
    lines = head + _OPENED + (_RANGED if ranged else _SIXTEEN_BITS) + _RGB + _FITS[fit]
    lines += "images = square[None].copy()\n" if preprocess else _NORMALISED
    if format == "onnx":
        lines += 'outputs = session.run(None, {"images": images})[0][0]\n'
    elif format == "openvino":
        lines += "outputs = session(images)[0][0]\n"
    else:
        lines += "outputs = model(torch.from_numpy(images))[0].detach().numpy()\n"
    if not preprocess:
        lines += (
            "outputs = np.exp(outputs - outputs.max()) / np.exp(outputs - outputs.max()).sum()\n"
        )
    return lines + "print(classes[outputs.argmax()], outputs.max())\n"
