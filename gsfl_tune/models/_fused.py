"""Convolutions that include the norms and activations after them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_Activation = tuple[str, list[float], str]
# oneDNN's names for operations after a convolution.
_ACTIVATIONS: dict[type[nn.Module], _Activation] = {
    nn.Identity: ("none", [], ""),
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.SiLU: ("swish", [], ""),
    nn.Hardswish: ("hardswish", [], ""),
}

# A convolution, the norm after it, and the activation after that.
Link = tuple[nn.Conv2d, nn.BatchNorm2d | None, nn.Module | None]


class FusedConv(nn.Module):
    """Combines a convolution with the norm and the activation after it.

    Args:
        conv: An `nn.Conv2d`, or timm's with TensorFlow's padding.
        norm: Folded into the weights; None for no norm.
        activation: The activation; on the CPU part of the same call.
        onednn: Whether to call oneDNN directly on the CPU.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None, activation: nn.Module, onednn: bool
    ) -> None:
        super().__init__()
        # In double precision, so that products are rounded only once.
        weight = conv.weight.double()
        bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.double()
        if norm is not None:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = (norm.running_var.double() + norm.eps).rsqrt()
            if norm.weight is not None:
                scale = scale * norm.weight.double()
            weight = weight * scale[:, None, None, None]
            bias = (bias - norm.running_mean.double()) * scale
            if norm.bias is not None:
                bias = bias + norm.bias.double()
        self.register_buffer("weight", weight.to(conv.weight.dtype))
        self.register_buffer("bias", bias.to(conv.weight.dtype))
        self.activation = activation
        self._same = isinstance(conv, Conv2dSame)
        self._padding = cast(list[int], [0, 0] if self._same else list(conv.padding))
        self._stride, self._dilation = list(conv.stride), list(conv.dilation)
        self._groups = conv.groups
        self._onednn = onednn
        # Weights by (rows, columns) of zeros before the kernel, and the same prepacked.
        self._weights: dict[tuple[int, int], Tensor] = {}
        self._packed: dict[tuple[int, int], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) to (B, C', h', w')."""
        padding, zeros = (self._padding, (0, 0)) if not self._same else self._same_padding(x)
        geometry = padding, self._stride, self._dilation, self._groups
        if not self._onednn or x.device.type != "cpu":
            x = functional.conv2d(
                x, self._weight(zeros), self.bias, self._stride, padding, *geometry[2:]
            )
            return cast(Tensor, self.activation(x))
        if zeros not in self._packed:
            self._packed[zeros] = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight(zeros), *geometry, None
            )
        activation = _ACTIVATIONS[type(self.activation)]
        return cast(
            Tensor,
            torch.ops.mkldnn._convolution_pointwise(
                x, self._packed[zeros], self.bias, *geometry, *activation
            ),
        )

    def _same_padding(self, x: Tensor) -> tuple[list[int], tuple[int, int]]:
        """Returns TensorFlow's padding, which may be one pixel larger at the end than at the start.

        A copy of the input for padding costs as much as the convolution. A kernel with a row of
        zeros before it and the larger padding on both sides gives the same result.
        """
        padding, zeros = [], []
        for side, kernel, stride, dilation in zip(
            x.shape[-2:], self.weight.shape[-2:], self._stride, self._dilation, strict=True
        ):
            span = dilation * (kernel - 1) + 1
            total = max((math.ceil(side / stride) - 1) * stride + span - side, 0)
            padding.append((total + 1) // 2)
            zeros.append(total % 2)
        return padding, (zeros[0], zeros[1])

    def _weight(self, zeros: tuple[int, int]) -> Tensor:
        if zeros == (0, 0):
            return self.weight
        if zeros not in self._weights:
            padded = functional.pad(self.weight, (zeros[1], 0, zeros[0], 0))
            self._weights[zeros] = padded.contiguous()
        return self._weights[zeros]

    def __getstate__(self) -> dict[str, Any]:
        # Prepacked weights cannot be copied.
        return {**self.__dict__, "_weights": {}, "_packed": {}}

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # For another device or precision, data derived from the weights is computed again.
        self._weights.clear()
        self._packed.clear()
        return super()._apply(fn, recurse)


class Trace(TorchDispatchMode):
    """Records which tensor each module received, and which modules use a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.largest = 0
        self._modules = list(model.modules())
        self._calls: dict[nn.Module, list[tuple[Any, Any]]] = defaultdict(list)
        self._users: dict[int, list[nn.Module | None]] = defaultdict(list)
        self._stack: list[tuple[nn.Module, Any]] = []
        self._kept: list[Tensor] = []  # an id is unique only while its tensor exists

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        user = self._stack[-1][0] if self._stack else None
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._users[id(tensor)].append(user)
                self._kept.append(tensor)
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel() * tensor.element_size())
                self._kept.append(tensor)
        return out

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Observes every call of a module."""

        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._stack.append((module, args[0] if args else None))

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._calls[module].append((self._stack.pop()[1], output))

        handles: list[Any] = []
        for module in self._modules:
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave, always_call=True))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def links(self) -> list[Link]:
        """Returns convolutions with the norm and the activation that are their only users."""
        once = {module: calls[0] for module, calls in self._calls.items() if len(calls) == 1}
        takers = {
            id(given): m for m, (given, _) in once.items() if _is_norm(m) or _is_activation(m)
        }

        def follower(module: nn.Module) -> nn.Module | None:
            output = once[module][1]
            found = takers.get(id(output))
            users = self._users[id(output)]
            if found is None or not users or users[0] is not found:
                return None
            # A tensor changed in place by an activation is used again, but only after it.
            in_place = once[found][1] is output
            return found if in_place or len(users) == 1 else None

        links = []
        for conv in once:
            if not _is_convolution(conv):
                continue
            norm, activation = None, follower(conv)
            if isinstance(activation, nn.BatchNorm2d):
                norm = activation
                own = getattr(norm, "act", nn.Identity())
                activation = follower(norm) if type(own) is nn.Identity else own
            if not _is_activation(activation):
                activation = None
            links.append((conv, norm, activation))
        return cast(list[Link], links)


def _is_convolution(module: nn.Module) -> bool:
    if type(module) is Conv2dSame:
        # With dilation, zeros before a kernel would be a dilation away from it.
        return module.padding_mode == "zeros" and module.dilation == (1, 1)
    return type(module) is nn.Conv2d and (
        module.padding_mode == "zeros" and not isinstance(module.padding, str)
    )


def _is_norm(module: nn.Module) -> bool:
    if type(module) is BatchNormAct2d:
        return type(module.drop) is nn.Identity and module.running_mean is not None
    return type(module) is nn.BatchNorm2d and module.running_mean is not None


def _is_activation(module: nn.Module | None) -> bool:
    return type(module) in _ACTIVATIONS and type(module) is not nn.Identity
