"""Failures of PyTorch's compiler, said as a problem of the experiment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gsfl_tune.experiment.errors import UserError, first_line


@contextmanager
def explained() -> Iterator[None]:
    """Turns failures of the compiler into a `UserError`."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise UserError(
                f"training.finetune.compile: found true, but torch.compile fails here "
                f"({first_line(error)}); allowed: false"
            ) from error
        raise
