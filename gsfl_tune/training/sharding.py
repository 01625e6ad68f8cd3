"""Parameters of a trained backbone that are divided over the processes of a training (FSDP2).

Every process keeps one part of each weight, of its gradient, and of what the optimiser knows of it.
A block's weights are joined for its passes and let go behind them. Sources: Zhao et al., "PyTorch
FSDP: Experiences on Scaling Fully Sharded Data Parallel", VLDB 2023, arXiv 2304.11277; Rajbhandari
et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", SC 2020, stage 3.

Everything outside of these blocks (head, pooling, what the loss trains, tensors that a model reads
without calling a module) is whole in every process, as in a training that is only divided.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gsfl_tune.models import Backbone
from gsfl_tune.training.optim import local_part
from gsfl_tune.training.process_group import Ranks

# Joining less than this costs a message and saves next to nothing.
_LEAST_ELEMENTS = 4096
# A block with more of the backbone than this is divided in parts, each joined by itself.
_LARGE = 1 / 8


class Shards:
    """Divides a network's trained blocks, and the optimiser's parameters with them.

    The optimiser then trains the parts that this process has. AdamW and SGD treat every element by
    itself, so the parts together are what one process would compute.

    Args:
        networks: The trained network, and its average if there is one: each with a backbone.
        optimizer: Optimiser of the first one, which has not taken a step yet.
        ranks: All processes, in the group that this process has joined.
        image_size: Side of the images in pixels.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        optimizer: torch.optim.Optimizer,
        ranks: Ranks,
        image_size: int,
    ) -> None:
        from torch.distributed.device_mesh import init_device_mesh

        self._ranks = ranks
        self._mesh = init_device_mesh(ranks.device.type, (ranks.share.size,))
        known = dict(networks[0].named_parameters())
        for network in networks:
            backbone = cast(Backbone, network.get_submodule("backbone"))
            for module in shardable(backbone, image_size):
                self._shard(module)
        divided = dict(networks[0].named_parameters())
        # What took a whole parameter's place, and this process' part of that.
        self._parts: list[tuple[nn.Parameter, nn.Parameter]] = []
        places: dict[int, nn.Parameter] = {}
        for name, whole in known.items():
            if (sharded := divided[name]) is not whole:
                part = nn.Parameter(local_part(sharded).detach())
                self._parts.append((sharded, part))
                places[id(whole)] = part
        _replace(optimizer, places)
        self._shapes = {id(part): sharded.shape for sharded, part in self._parts}

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Lets a new optimiser, made of the divided network, train this process' parts."""
        _replace(optimizer, {id(sharded): part for sharded, part in self._parts})

    def _shard(self, module: nn.Module) -> None:
        from torch.distributed.fsdp import FSDPModule, fully_shard

        # FSDP takes tensors in torch's usual order of dimensions only.
        module.to(memory_format=torch.contiguous_format)
        fully_shard(module, mesh=self._mesh, reshard_after_forward=True)
        unit = cast(FSDPModule, module)
        # Each process has weighted its loss by its share of the batch.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)

    @property
    def count(self) -> int:
        """Returns the number of parameters that are divided."""
        return len(self._parts)

    def take_gradients(self) -> None:
        """Hands the summed gradients of the parts to the optimiser's parameters."""
        for sharded, part in self._parts:
            part.grad = None if sharded.grad is None else local_part(sharded.grad)
            sharded.grad = None

    def is_part(self, parameter: nn.Parameter) -> bool:
        """Returns whether a parameter of the optimiser is a part of a divided one."""
        return id(parameter) in self._shapes

    @torch.no_grad()
    def clip(self, parameters: Sequence[nn.Parameter], most: float) -> None:
        """Scales all gradients as `torch.nn.utils.clip_grad_norm_` does for one process.

        Args:
            parameters: All parameters of the optimiser; gradients of whole ones are summed already.
            most: Largest norm of all gradients together.
        """
        every = [each for each in parameters if each.grad is not None]
        squares = torch.zeros(2, device=self._ranks.device)
        for each in every:
            assert each.grad is not None
            squares[int(self.is_part(each))] += each.grad.float().square().sum()
        own = squares[1:].clone()
        self._ranks.add_up([own])
        total = (squares[0] + own[0]).sqrt()
        factor = (most / (total + 1e-6)).clamp(max=1.0)
        for each in every:
            assert each.grad is not None
            each.grad.mul_(factor.to(each.grad.dtype))

    def whole(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Joins the tensors of a module's state; every process must call it at once.

        Args:
            state: A ``state_dict``.

        Returns:
            The same on the CPU, as one process has it.
        """
        return {
            name: _whole(value).cpu() if isinstance(value, Tensor) else value
            for name, value in state.items()
        }

    @torch.no_grad()
    def load(self, module: nn.Module, state: Mapping[str, Any]) -> None:
        """Loads a whole state into a module, each process its parts.

        Raises:
            RuntimeError: When names or shapes differ.
        """
        own = module.state_dict()
        if own.keys() != state.keys():
            raise RuntimeError(f"other tensors: {sorted(own.keys() ^ state.keys())[:5]}")
        for name, value in own.items():
            if not isinstance(value, Tensor):
                continue
            found = state[name]
            if value.shape != found.shape:
                raise RuntimeError(f"{name}: found {tuple(found.shape)}, not {tuple(value.shape)}")
            target = local_part(value)
            target.copy_(found if target is value else self._own(found))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Returns an optimiser's state as one process has it; all must call it at once."""
        found = optimizer.state_dict()
        states = {
            place: {
                key: self._joined(value, parameter) if isinstance(value, Tensor) else value
                for key, value in found["state"][place].items()
            }
            for place, parameter in enumerate(_parameters(optimizer))
            if place in found["state"]
        }
        return {**found, "state": states}

    def load_optimizer(self, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Loads a whole state of an optimiser, each process its parts."""
        states = {
            place: {
                key: self._own(value) if self._is_divided(value, parameter) else value
                for key, value in state["state"][place].items()
            }
            for place, parameter in enumerate(_parameters(optimizer))
            if place in state["state"]
        }
        optimizer.load_state_dict({**state, "state": states})

    def _is_divided(self, value: Any, parameter: nn.Parameter) -> bool:
        return isinstance(value, Tensor) and value.shape == self._shapes.get(id(parameter))

    def _joined(self, value: Tensor, parameter: nn.Parameter) -> Tensor:
        shape = self._shapes.get(id(parameter))
        if shape is None or value.shape != parameter.shape:  # a count of steps
            return value.cpu()
        parts = _sizes(shape[0], self._ranks.share.size)
        padded = value.new_zeros((max(parts), *shape[1:]))
        padded[: len(value)] = value
        gathered = [torch.empty_like(padded) for _ in parts]
        dist.all_gather(gathered, padded)
        return torch.cat([one[:n].cpu() for one, n in zip(gathered, parts, strict=True)])

    def _own(self, whole: Tensor) -> Tensor:
        """Returns this process' part of a tensor."""
        parts = _sizes(len(whole), self._ranks.share.size)
        first = sum(parts[: self._ranks.share.rank])
        return whole[first : first + parts[self._ranks.share.rank]]


def shardable(backbone: Backbone, image_size: int) -> list[nn.Module]:
    """Returns the modules of a backbone whose parameters are divided, none inside of another.

    A pass must call them: where a model reads the weights of a module that it does not call, they
    would not be joined. All of their parameters are trained.

    Args:
        backbone: With its trained parameters chosen.
        image_size: Side of the images in pixels.
    """
    model = backbone.model
    called = _called(backbone, image_size)
    trained = sum(each.numel() for each in model.parameters() if each.requires_grad)
    return list(_units(model, called, trained * _LARGE, root=True))


def _units(
    module: nn.Module, called: set[nn.Module], large: float, *, root: bool = False
) -> Iterator[nn.Module]:
    parameters = list(module.parameters())
    size = sum(each.numel() for each in parameters)
    if not any(each.requires_grad for each in parameters):
        return
    lists = (nn.Sequential, nn.ModuleList)
    holds_blocks = any(isinstance(each, lists) for each in module.modules())
    able = module in called and all(each.requires_grad for each in parameters)
    if able and not root and not (size > large and holds_blocks):
        if size >= _LEAST_ELEMENTS and all(each.ndim for each in parameters):
            yield module
        return
    for child in module.children():
        yield from _units(child, called, large)


@torch.no_grad()
def _called(backbone: Backbone, image_size: int) -> set[nn.Module]:
    """Returns the modules that a pass calls."""
    found: set[nn.Module] = set()
    handles = [
        module.register_forward_pre_hook(lambda module, _: found.add(module))
        for module in backbone.model.modules()
    ]
    weight = next(backbone.model.parameters())
    mode = backbone.training
    backbone.eval()
    try:
        backbone(weight.new_zeros(1, 3, image_size, image_size))
    finally:
        backbone.train(mode)
        for handle in handles:
            handle.remove()
    return found


def _replace(optimizer: torch.optim.Optimizer, places: Mapping[int, nn.Parameter]) -> None:
    """Gives an optimiser other parameters in place of some, which are named by their id."""
    for group in optimizer.param_groups:
        group["params"] = [places.get(id(each), each) for each in group["params"]]


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [each for group in optimizer.param_groups for each in group["params"]]


def _sizes(length: int, ranks: int) -> list[int]:
    """Returns the lengths of the parts, as `torch.chunk` makes them and FSDP with it."""
    step = -(-length // ranks)
    return [max(0, min(step, length - rank * step)) for rank in range(ranks)]


def _whole(tensor: Tensor) -> Tensor:
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else cast(Tensor, full())
