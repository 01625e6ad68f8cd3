"""Commands start without PyTorch's compiler, and it works as always where it is used."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("torch._dynamo", "torch._inductor", "sympy", "triton", "wandb")

CODE = """
import json, sys
import gsfl_tune.models
import torch, torchvision, timm
{code}
print(json.dumps(sorted(sys.modules)))
"""

POOLED = """
boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
pooled = torchvision.ops.roi_align(torch.ones(1, 2, 8, 8), boxes, output_size=2)
assert torch.equal(pooled, torch.ones(1, 2, 2, 2))
"""

# The same numbers compiled and not; the compiler is told to leave a marked function alone.
COMPILED = """
assert "torch._dynamo" not in sys.modules
double = torch.compile(lambda x: 2 * x + 1, backend="eager")
assert torch.equal(double(torch.ones(3)), torch.full((3,), 3.0))
assert torch._dynamo.is_dynamo_supported()
import torchvision.tv_tensors
image = torchvision.tv_tensors.Image(torch.ones(3, 4, 4))
assert isinstance(torchvision.tv_tensors.wrap(torch.zeros(3, 4, 4), like=image), type(image))
seen = []
def look(graph, inputs):
    seen.append(graph)
    return graph.forward
from gsfl_tune.lean_imports import not_compiled
hidden = not_compiled(lambda x: x * 5)
step = torch.compile(lambda x: hidden(x + 2) + 1, backend=look)
assert torch.equal(step(torch.ones(3)), torch.full((3,), 16.0))
names = [str(node.target) for graph in seen for node in graph.graph.nodes]
assert len(seen) == 2 and not any("mul" in name for name in names), names
"""


def _modules(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(code=code)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_models_and_pooling_do_without_the_compiler() -> None:
    modules = _modules(POOLED)
    assert not modules & set(HEAVY)


def test_whoever_compiles_gets_the_compiler() -> None:
    assert "torch._dynamo" in _modules(COMPILED)


def test_whoever_imported_it_before_loses_nothing() -> None:
    code = "import sys\nimport timm\nimport gsfl_tune.models, torch\n"
    code += "assert torch._dynamo.utils.is_compile_supported('cpu') in (True, False)\n"
    code += "import torchvision\npooling = sys.modules['torchvision.ops.roi_align']\n"
    code += "assert pooling.is_compile_supported('meta') is False\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
