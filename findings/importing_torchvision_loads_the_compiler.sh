#!/usr/bin/env bash
# `import torchvision` takes as long as `import torch`: it loads the compiler of PyTorch, with sympy
# and triton, for the name of one function.
#
# Versions: torchvision 0.29.1, torch 2.14.1 (CPU, Python 3.11).
#
# torchvision.ops.roi_align imports one name of torch._dynamo.utils at its top, although the module
# has a helper whose words are that it avoids importing dynamo. timm 1.0.31 imports torchvision, so
# whoever makes a model pays too, also where nothing is compiled. Seen:
#   modules after `import torch`                       1213
#   modules after `import torchvision`                 2297, of these 146 of torchvision,
#                                                      419 of sympy, 95 of torch._dynamo, 71 of triton
#   CPU seconds of torch, then of torchvision          1.2, 1.0
#   CPU seconds of torchvision where a module that     0.1
#     has that one name stands for torch._dynamo.utils
#
# Takes about three minutes and 6 GB in a temporary folder. Fails if any of this has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1
cd "$folder"
cat > imports.py <<'PYTHON'
import json
import sys
import time
import types

start = time.process_time()
import torch  # noqa: E402, F401

first = time.process_time() - start
if len(sys.argv) > 1:
    package, module = (types.ModuleType(f"torch._dynamo{each}") for each in ("", ".utils"))
    package.__path__ = []
    module.is_compile_supported = lambda device: False
    sys.modules |= {"torch._dynamo": package, "torch._dynamo.utils": module}
start = time.process_time()
import torchvision  # noqa: E402, F401

names = {name.partition(".")[0] for name in sys.modules}
print(
    json.dumps(
        {
            "torch": first,
            "torchvision": time.process_time() - start,
            "compiler": "torch._dynamo.symbolic_convert" in sys.modules,
            "sympy": "sympy" in names,
        }
    )
)
PYTHON
"$folder/venv/bin/python" imports.py > /dev/null # writes compiled modules
"$folder/venv/bin/python" imports.py > whole.json
"$folder/venv/bin/python" imports.py stub > stub.json
"$folder/venv/bin/python" - <<'PYTHON'
import json
from pathlib import Path

whole, stub = (json.loads(Path(f"{name}.json").read_text()) for name in ("whole", "stub"))
print(whole, stub, sep="\n")
assert whole["compiler"]
assert whole["sympy"]
assert not stub["compiler"]
assert stub["torchvision"] < 0.5 * whole["torchvision"], "the compiler is no longer most of it"
PYTHON
