"""The contract of a head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from gsfl_tune.models import INFERENCE_HEADS, HeadOutput, PlainHead
from gsfl_tune.testing._expect import Expect

_expect = Expect("the head")
_IMAGES, _FEATURES, _CLASSES = 6, 10, 4


def check_head(create: Callable[[int, int], PlainHead]) -> None:
    """Checks a head, in float64 on the CPU.

    - It gives logits, discriminative parts and, together or not at all, shared parts and
      reconstructions, in the sizes that it says, and finite. Logits are linear in the
      discriminative part, and every parameter is trained.
    - In eval mode it gives the same again, for an image alone too, and `infer` gives the logits.
    - What is restored from its ``state_dict`` gives the same.
    - What a bundle keeps of it, `inference_state`, gives the same in the head that bundles are
      loaded into, and so does the exported program, for batches of any size.
    - It has as many parameters as it says before it is made.

    Args:
        create: Makes the head from D and C.

    Raises:
        AssertionError: With what is wrong.
    """
    torch.manual_seed(0)
    head = create(_FEATURES, _CLASSES).double().eval()
    f = functional.normalize(torch.randn(_IMAGES, _FEATURES, dtype=torch.float64), dim=1)
    output: HeadOutput = head(f)
    _check_sizes(head, output)
    _expect(_same(output, head(f)), "gives something else for the same features in eval mode")
    _expect(torch.equal(head.infer(f), output.logits), "infers other logits than it gives")
    for place in range(_IMAGES):
        alone = head(f[place : place + 1])
        _expect(
            torch.allclose(alone.logits[0], output.logits[place]), "depends on the other images"
        )
    restored = create(_FEATURES, _CLASSES).double().eval()
    restored.load_state_dict(head.state_dict())
    _expect(_same(output, restored(f)), "is another one after it was restored")
    _check_counted(head)
    _check_bundle(head, f, output.logits)
    _check_trained(head, f)


def _check_sizes(head: PlainHead, output: HeadOutput) -> None:
    sizes = {
        "logits": (output.logits, _CLASSES),
        "discriminative parts": (output.discriminative, head.latent_dim),
    }
    both = (output.shared is None) == (output.reconstruction is None)
    _expect(both, "gives shared parts without reconstructions, or the other way round")
    if output.shared is not None and output.reconstruction is not None:
        sizes["shared parts"] = (output.shared, head.latent_dim)
        sizes["reconstructions"] = (output.reconstruction, _FEATURES)
    for name, (values, size) in sizes.items():
        shape = (_IMAGES, size)
        _expect(values.shape == shape, f"gives {name} {tuple(values.shape)}, allowed is {shape}")
        _expect(bool(torch.isfinite(values).all()), f"gives {name} that are not finite")
    linear = functional.linear(output.discriminative, head.classifier.weight, head.classifier.bias)
    _expect(
        torch.allclose(linear, output.logits),
        "gives logits that are not those of its classifier for the discriminative part",
    )


def _check_counted(head: PlainHead) -> None:
    latent = head.latent_size(_FEATURES, head.latent_dim)
    _expect(latent == head.latent_dim, f"has a latent size of {head.latent_dim}, it says {latent}")
    found = sum(each.numel() for each in head.parameters())
    said = head.count_parameters(_FEATURES, head.latent_dim, _CLASSES)
    _expect(found == said, f"has {found} parameters, it says {said}")


def _check_bundle(head: PlainHead, f: Tensor, logits: Tensor) -> None:
    kept = INFERENCE_HEADS[head.architecture].create(
        _FEATURES,
        _CLASSES,
        latent_dim=head.latent_dim,
        dropout=0.5 if head.encodes else 0.0,
        feature_scale=head.feature_scale,
        decoder="linear",
    )
    try:
        kept.double().eval().load_state_dict(head.inference_state())
    except RuntimeError as error:
        raise AssertionError(
            f"the head keeps what no bundle of the architecture {head.architecture} loads: {error}"
        ) from error
    _expect(torch.allclose(kept.infer(f), logits), "gives other logits from a bundle")
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(_Inference(kept), (f[:2],), dynamic_shapes={"f": {0: batch}})
    exported = program.module()(f)
    _expect(torch.allclose(exported, logits), "gives other logits when it is exported")


def _check_trained(head: PlainHead, f: Tensor) -> None:
    output = head(f)
    parts = [output.logits, output.discriminative, output.shared, output.reconstruction]
    sum((each.square().sum() for each in parts if each is not None), f.new_zeros(())).backward()
    idle = [
        name for name, each in head.named_parameters() if each.grad is None or not each.grad.any()
    ]
    _expect(not idle, f"does not train {', '.join(idle)}")


class _Inference(nn.Module):
    def __init__(self, head: PlainHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, f: Tensor) -> Tensor:
        return self.head.infer(f)


def _same(one: HeadOutput, other: HeadOutput) -> bool:
    return all(
        a is b if a is None or b is None else torch.equal(a, b)
        for a, b in zip(one, other, strict=True)
    )
