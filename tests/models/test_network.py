import pytest
import torch

from gsfl_tune.losses import ClassCenters
from gsfl_tune.models import (
    Network,
    create_backbone,
    create_head,
    create_pooling,
    fit_projection,
    map_shape,
    probe,
)


def build(kind="gsfl", pooling="compact_bilinear", seed=0):
    backbone = create_backbone("resnet18", "none")
    projection = None
    channels = backbone.channels
    if pooling != "average":
        projection = fit_projection([backbone(torch.rand(4, 3, 64, 64))], 16)
        channels = 16
    pool = create_pooling(pooling, channels, dim=64)
    torch.manual_seed(seed)
    head = create_head(kind, pool.dim, 3, latent_dim=8, dropout=0.2, feature_scale=5.0)
    return Network(backbone, projection, pool, head).eval()


@pytest.mark.parametrize("pooling", ["average", "bilinear", "compact_bilinear"])
def test_features_are_unit_vectors(pooling):
    network = build(pooling=pooling)
    f = network.features(torch.rand(2, 3, 64, 64))
    assert f.shape == (2, network.pooling.dim)
    assert torch.allclose(f.norm(dim=1), torch.ones(2))


def test_inference_equals_the_whole_network_and_leaves_the_shared_branch_out():
    network = build()
    images = torch.rand(2, 3, 64, 64)
    whole = network(images).logits
    assert torch.equal(network.infer(images), whole)

    state = network.inference_state()
    left_out = network.state_dict().keys() - state.keys()
    assert {k.split(".")[1] for k in left_out} == {"shared", "decoder"}
    plain = build("plain", seed=9)
    plain.load_state_dict(state)
    assert torch.equal(plain(images).logits, whole)


def test_parts_that_do_not_fit_are_refused():
    network = build()
    with pytest.raises(ValueError, match="512 channels, pooling from 16"):
        Network(network.backbone, None, network.pooling, network.head)


def test_gradients_reach_the_last_blocks_only():
    network = build(pooling="average")
    trainable = network.backbone.train_last(1)
    network.train()
    network(torch.rand(2, 3, 64, 64)).logits.sum().backward()
    assert all(p.grad is not None for p in trainable)
    assert network.backbone.model.conv1.weight.grad is None


def test_published_configuration():
    """VGG-16 before pool5, compact bilinear pooling, H 4096, K 5, 200 classes."""
    latent, classes, dim, groups = 4096, 200, 8192, 5
    assert map_shape("vgg16", 448) == (512, 28, 28)
    convolutions = [
        (3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256),
        (256, 512), (512, 512), (512, 512), (512, 512), (512, 512), (512, 512),
    ]  # fmt: skip
    assert probe("vgg16").parameters == sum(9 * a * b + b for a, b in convolutions) == 14_714_688

    with torch.device("meta"):
        pooling = create_pooling("compact_bilinear", 512, dim=dim)
        head = create_head("gsfl", dim, classes, latent_dim=latent, dropout=0.5, feature_scale=1.0)
    centers = ClassCenters(torch.arange(classes) % groups, latent)
    backbone = create_backbone("vgg16", "none").to("meta")
    network = Network(backbone, None, pooling.to("meta"), head)
    output = network(torch.empty(2, 3, 448, 448, device="meta"))
    assert output.logits.shape == (2, classes)
    assert output.discriminative.shape == output.shared.shape == (2, latent)
    assert output.reconstruction.shape == (2, dim)
    assert centers.centers.shape == (classes, latent)
    assert centers.group_count == groups

    def count(state):
        return sum(v.numel() for v in state.values())

    encoder = dim * latent + latent + latent * latent + latent
    decoder = latent * latent + latent + latent * dim + dim
    classifier = latent * classes + classes
    assert count(head.state_dict()) == 2 * encoder + decoder + classifier == 151_843_016
    assert count(head.inference_state()) == encoder + classifier
