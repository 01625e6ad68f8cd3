"""The parameters that a feature map depends on, and the order in which a forward pass reads them.

Both follow from the operations of one pass, which may run on the meta device: no numbers are
needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_ALL = float("inf")
_SUMS = {"add", "add_"}
_JOINS = {"cat", "stack"}
_ROW_BY_ROW = {"clone", "_to_copy", "mul", "native_layer_norm_backward"}
# Operations that give zeros for zeros, whatever their other arguments; so does `.._backward`.
_OF_ZEROS = {
    *("_to_copy", "_unsafe_view", "bmm", "clone", "detach", "div", "expand", "mm", "mul", "neg"),
    *("permute", "select", "slice", "split", "squeeze", "sum", "t", "transpose", "unsqueeze"),
    *("view", "native_layer_norm_backward"),
}
_BACKWARD = ("_backward", "_backward_data")


class FirstUses(TorchDispatchMode):
    """Records when each parameter of a model is first read.

    Attributes:
        order: Rank of the first use by the parameter's name; an unread parameter has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.order: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._operations = 0

    def watch(self, model: nn.Module) -> None:
        """Observes the parameters of a model that has just been created."""
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Checks the arguments of one operation."""
        self._operations += 1
        for leaf in tree_leaves((args, kwargs)):
            name = self._names.get(id(leaf)) if isinstance(leaf, Tensor) else None
            if name is not None:
                self.order.setdefault(name, self._operations)
        return func(*args, **(kwargs or {}))


def without_gradient(map_: Tensor, named: Sequence[tuple[str, Tensor]]) -> frozenset[str]:
    """Returns the names of parameters whose gradient is missing, or zero for all images.

    Zeros arise where a model processes only its class token, as the last blocks of CaiT, XCiT and
    VOLO do, and the map leaves this token out: autograd fills its place with zeros.

    Args:
        map_: A feature map with its graph.
        named: Parameters and their names.
    """
    zeros = _Zeros()
    with torch.enable_grad():
        total = map_.sum()
        with zeros:
            gradients = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
    return frozenset(
        name
        for (name, _), gradient in zip(named, gradients, strict=True)
        if gradient is None or zeros.nothing_in(gradient)
    )


class _Zeros(TorchDispatchMode):
    """Follows zeros through a backward pass: gradients whose first tokens are zero.

    An operation that is not known to keep zeros is assumed to lose them.
    """

    def __init__(self) -> None:
        super().__init__()
        # By a tensor's identity: the number of zero rows of dimension 1 at its beginning
        # (infinity for a zero tensor), and the tensor itself, so that no other tensor gets the
        # same identity.
        self._rows: dict[int, tuple[float, Tensor]] = {}

    def nothing_in(self, gradient: Tensor) -> bool:
        """Returns whether a gradient is zero everywhere."""
        return self._of(gradient) == _ALL

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs one operation and records the zeros in its result."""
        outputs = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        name = func.overloadpacket.__name__
        for number, output in enumerate(tree_leaves(outputs)):
            if isinstance(output, Tensor):
                rows = self._after(name, args, inputs, output)
                # The first of several outputs is the gradient of the tokens.
                self._rows[id(output)] = (rows if number == 0 or rows == _ALL else 0.0, output)
        return outputs

    def _after(
        self, name: str, args: tuple[Any, ...], inputs: list[Tensor], output: Tensor
    ) -> float:
        known = [self._of(tensor) for tensor in inputs]
        if name == "slice_backward" and known[0] == 0:  # (gradient, sizes, dim, start, ..)
            return float(args[3]) if args[2] == 1 and output.ndim == 3 and args[3] > 0 else 0.0
        if not any(known):
            return 0.0
        if name in _SUMS:
            fit = len(inputs) == 2 and inputs[0].shape == inputs[1].shape
            return min(known) if fit else 0.0
        if name in _JOINS:
            return _ALL if min(known) == _ALL else 0.0
        if max(known) == _ALL:
            return _ALL if name in _OF_ZEROS or name.endswith(_BACKWARD) else 0.0
        if name == "slice" and len(args) >= 4 and args[1] == 1 and args[2] >= 0:
            stop = args[3] if args[3] >= 0 else args[3] + inputs[0].shape[1]
            return _ALL if known[0] >= stop else max(0.0, known[0] - args[2])
        if name in _ROW_BY_ROW:
            rows = max(known)
            return rows if inputs[known.index(rows)].shape == output.shape else 0.0
        return 0.0

    def _of(self, tensor: Tensor) -> float:
        return self._rows.get(id(tensor), (0.0, tensor))[0]
