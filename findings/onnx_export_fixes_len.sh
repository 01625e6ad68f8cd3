#!/usr/bin/env bash
# torch.onnx.export writes a file that takes one batch size alone, without an error, where
# torch.export refuses the same module.
#
# Versions: torch 2.14.1, onnx 1.23.2, onnxscript 0.7.2, onnxruntime 1.32.0 (CPU, Python 3.11).
#
# A network that asks for its batch size by len(x) instead of x.shape[0] is given a dynamic first
# dimension. Seen:
#   torch.export.export    raises: the code specialised the dimension to be a constant
#   torch.onnx.export      returns as ever; the input of its file is [2, 3, 4] instead of
#                          ['batch', 3, 4], and the file refuses five images when it is run
# With x.shape[0] both keep the dimension. Whoever exports to ONNX should run the file with another
# batch size before it is deployed, as a check of the file itself (onnx.checker) finds nothing.
#
# Takes about five minutes and 6 GB in a temporary folder. Fails if any of this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 onnx==1.23.2 onnxscript==0.7.2 \
  onnxruntime==1.32.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn


class ByLen(nn.Module):
    def forward(self, x):
        return x.reshape(len(x), -1).sum(1)


class ByShape(nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0], -1).sum(1)


images = torch.ones(2, 3, 4)
dynamic = {"x": {0: torch.export.Dim("batch")}}
seen = {}
for kind in (ByLen, ByShape):
    network = kind().eval()
    try:
        torch.export.export(network, (images,), dynamic_shapes=dynamic)
        exported = "exported"
    except Exception as error:
        exported = "refused" if "specialized it to be a constant" in str(error) else repr(error)
    torch.onnx.export(
        network, (images,), "file.onnx", input_names=["x"], dynamic_shapes=dynamic, verbose=False
    )
    onnx.checker.check_model("file.onnx")
    session = onnxruntime.InferenceSession("file.onnx")
    try:
        answers = session.run(None, {"x": np.ones((5, 3, 4), np.float32)})[0].shape
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument:
        answers = "refused"
    seen[kind.__name__] = (exported, session.get_inputs()[0].shape, answers)
    print(kind.__name__, *seen[kind.__name__], sep=" | ")
expected = {
    "ByLen": ("refused", [2, 3, 4], "refused"),
    "ByShape": ("exported", ["batch", 3, 4], (5,)),
}
if seen != expected:
    raise SystemExit(f"changed: found {seen}, expected {expected}")
print("as described")
PYTHON
