import pytest
import torch
from torch.nn import functional as F

from gsfl_tune.models import GsflHead, PlainHead, create_head, head_parameters

SIZES = {"latent_dim": 6, "dropout": 0.5, "feature_scale": 3.0}


def unit(*shape):
    return F.normalize(torch.randn(*shape), dim=1)


def linear(x, weights, prefix):
    return x @ weights[f"{prefix}.weight"].T + weights[f"{prefix}.bias"]


@pytest.mark.parametrize("decoder", ["linear", "sigmoid"])
def test_gsfl_head_computes_what_the_paper_says(decoder):
    head = GsflHead(10, 4, decoder=decoder, **SIZES).eval()
    f = unit(5, 10)
    weights = head.state_dict()

    def encode(part):
        return linear(linear(3.0 * f, weights, f"{part}.1"), weights, f"{part}.3").relu()

    d, s = encode("discriminative"), encode("shared")
    output = head(f)
    assert torch.allclose(output.discriminative, d, atol=1e-6)
    assert torch.allclose(output.shared, s, atol=1e-6)
    hidden = linear(s + d, weights, "decoder.0").relu()
    reconstruction = linear(hidden, weights, "decoder.2")
    if decoder == "sigmoid":
        reconstruction = reconstruction.sigmoid()
    assert torch.allclose(output.reconstruction, reconstruction, atol=1e-6)
    assert torch.allclose(output.logits, linear(d, weights, "classifier"), atol=1e-6)


def test_inference_needs_no_shared_branch():
    gsfl = GsflHead(10, 4, **SIZES).eval()
    state = gsfl.inference_state()
    assert {k.split(".")[0] for k in state} == {"discriminative", "classifier"}
    plain = PlainHead(10, 4, **SIZES).eval()
    plain.load_state_dict(state)
    f = unit(5, 10)
    assert torch.equal(plain.infer(f), gsfl(f).logits)
    assert torch.equal(plain(f).logits, gsfl.infer(f))
    assert plain(f).shared is None
    assert plain(f).reconstruction is None


def test_dropout_acts_on_both_encoders_before_both_layers():
    head = GsflHead(400, 4, latent_dim=300, dropout=0.5, feature_scale=1.0)
    inputs = []
    for part in (head.discriminative, head.shared):
        for index in (1, 3):
            part[index].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    head.train()(unit(8, 400))
    shares = [float((x == 0).float().mean()) for x in inputs]
    assert shares == [pytest.approx(0.5, abs=0.06)] * 4
    assert not torch.equal(inputs[0], inputs[2])  # the encoders draw their own


def test_control_starts_with_the_same_discriminative_weights():
    heads = []
    for kind in ("gsfl", "plain"):
        torch.manual_seed(1)
        heads.append(create_head(kind, 10, 4, **SIZES))
    ours, control = (head.inference_state() for head in heads)
    assert ours.keys() == control.keys()
    assert all(torch.equal(ours[k], control[k]) for k in ours)


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="gsfl, plain, linear and fsdg"):
        create_head("other", 10, 4, **SIZES)
    with pytest.raises(ValueError, match="linear and sigmoid"):
        create_head("gsfl", 10, 4, decoder="tanh", **SIZES)


@pytest.mark.parametrize("kind", ["gsfl", "plain", "linear", "fsdg"])
def test_head_parameters_are_those_of_the_head(kind):
    head = create_head(kind, 48, 7, latent_dim=16, dropout=0, feature_scale=1)
    counted = sum(parameter.numel() for parameter in head.parameters())
    assert head_parameters(kind, 48, 16, 7) == counted
