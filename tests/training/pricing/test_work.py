"""Arithmetic of trainings, against what the networks really compute."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gsfl_tune.experiment.methods import METHODS
from gsfl_tune.methods import method_class
from gsfl_tune.models import (
    AttentionSettings,
    attention_work,
    create_backbone,
    map_shape,
    zoom_work,
)
from gsfl_tune.models.arithmetic import backbone_work
from gsfl_tune.training.pricing import training_work
from gsfl_tune.training.stages.work import feature_size

from ..conftest import tiny_config


def test_the_steps_of_a_covariance_pooling_are_paid_in_the_finetune_stage():
    stages = {"head": {"epochs": 1}, "finetune": {"epochs": 1}}
    bilinear, covariance = (
        training_work(
            tiny_config(
                model={"pooling": pooling, "pooling_channels": 16, "head": "linear"},
                training=stages,
            ),
            train=64,
            validation=8,
            classes=4,
        )
        for pooling in ("bilinear", "isqrt_cov")
    )
    # 16 x 16 against 16 x 17 / 2 numbers, and 15 products of 16 x 16 matrices.
    assert covariance[0].operations < bilinear[0].operations
    assert covariance[1].operations > bilinear[1].operations


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "test_convnext", "resnet10t"])
@pytest.mark.parametrize("blocks", [1, 2, "all"])
def test_operations_of_a_backbone_are_those_of_its_parts(name, blocks):
    side = 160 if name == "test_vit" else 64
    backbone = create_backbone(name, "none")
    backbone.train_last(blocks)
    images = torch.randn(1, 3, side, side)
    # torch does not count what its fused attention does.
    with FlopCounterMode(display=False) as whole, sdpa_kernel(SDPBackend.MATH):
        backbone(images)
    work = backbone_work(name, blocks, side)
    assert work.frozen + work.trained == whole.get_total_flops()
    assert work.parameters == sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    if blocks == "all":
        assert work.frozen == 0
        return
    split = backbone.split(side)
    activations = split.prefix(images)
    with FlopCounterMode(display=False) as suffix, sdpa_kernel(SDPBackend.MATH):
        split.suffix(activations)
    # The parts are counted by the modules that hold trained parameters.
    assert work.trained == pytest.approx(suffix.get_total_flops(), rel=0.01)


def test_a_frozen_backbone_trains_nothing():
    work = backbone_work("resnet10t", 0, 64)
    assert (work.trained, work.parameters) == (0, 0)


def stages(**changes):
    config = tiny_config(**changes)
    return {
        work.stage: work for work in training_work(config, train=600, validation=100, classes=21)
    }


def test_what_makes_a_training_dear():
    base = stages(training={"finetune": {"epochs": 2, "blocks": 1}})
    assert base["head"].steps == -(-600 // 16)
    assert base["head"].epochs == 4
    large = stages(model={"latent_dim": 512}, training={"finetune": {"epochs": 2, "blocks": 1}})
    assert large["head"].operations > 30 * base["head"].operations
    deep = stages(training={"finetune": {"epochs": 2, "blocks": "all"}})
    assert deep["finetune"].operations > base["finetune"].operations
    cached = stages(data={"views": 2}, training={"finetune": {"epochs": 2, "blocks": 1}})
    assert cached["finetune"].operations < base["finetune"].operations
    assert cached["finetune"].kind != base["finetune"].kind
    plain = stages(model={"head": "plain"})
    assert plain["head"].operations < base["head"].operations


def test_views_and_passes_of_a_method_are_priced():
    """Two views and SAM pass everything twice; R-Drop passes the head twice, features once."""
    both = {"head": {"epochs": 2}, "finetune": {"epochs": 2}}
    base = stages(training=both)
    found = {
        name: stages(training={**both, "method": name}) for name in METHODS if name != "single"
    }
    assert 1.8 < found["two_views"]["finetune"].operations / base["finetune"].operations < 2
    assert 1.8 < found["sam"]["finetune"].operations / base["finetune"].operations < 2
    assert 1 < found["rdrop"]["finetune"].operations / base["finetune"].operations < 1.1
    # Of each of two images: a pass of the weak view, and a step of the strong one.
    ratio = found["fixmatch"]["finetune"].operations / base["finetune"].operations
    assert 3.2 < ratio < 1 + 2 * (1 + 1 / 3)
    assert found.pop("fixmatch")["head"].operations == base["head"].operations
    for name, own in found.items():
        ratio = own["head"].operations / base["head"].operations
        # What looks at maps takes a single pass of the head stage.
        assert ratio == 1 if method_class(name).reads_maps else 1.5 < ratio < 2, name
        # Its speed is measured apart.
        assert all(own[stage].kind != base[stage].kind for stage in base)


def test_passes_that_are_left_out_cost_nothing():
    def of(crop, drop):
        settings = {"method": "attention_crop", "attention_crop": {"crop": crop, "drop": drop}}
        return stages(training={"finetune": {"epochs": 2}, **settings})["finetune"].operations

    base = stages(training={"finetune": {"epochs": 2}})["finetune"].operations
    assert of(0, 0) == base
    assert 1.8 < of(1, 0) / base == of(0, 1) / base < 2
    assert 2.6 < of(1, 1) / base < 3


def test_every_jigsaw_costs_a_pass():
    def of(levels):
        settings = {"method": "pmg", "pmg": {"levels": levels, "width": 16}}
        return stages(training={"finetune": {"epochs": 2}, **settings})["finetune"].operations

    base = stages(training={"finetune": {"epochs": 2}})["finetune"].operations
    # Classifiers are small beside it.
    assert 1.8 < of(1) / base < 2.1
    assert 3.4 < of(3) / base < 4.1


def test_no_more_jigsaws_are_priced_than_blocks_are_trained():
    """Each also costs its classifier."""

    def of(levels, width, blocks):
        settings = {"method": "pmg", "pmg": {"levels": levels, "width": width}}
        changes = {"finetune": {"epochs": 2, "blocks": blocks}, **settings}
        return stages(training=changes)["finetune"].operations

    assert of(3, 64, 1) == of(1, 64, 1) < of(1, 64, 2) < of(2, 64, 2) == of(3, 64, 2)
    assert of(1, 512, 1) > 1.2 * of(1, 64, 1)


def test_contrast_of_attributes_grows_with_the_batch():
    def of(contrast, batch):
        finetune = {"epochs": 2, "blocks": 1, "batch_size": batch}
        settings = {"method": "attribute_attention", "attribute_attention": {"contrast": contrast}}
        work = stages(training={"finetune": finetune, **settings})["finetune"]
        return work.operations

    more = of(1.0, 64) - of(0.0, 64)
    # Forwards and backwards: 312 attributes of CUB, embeddings of 128 numbers.
    assert more == pytest.approx(600 * 3 * 2 * 312 * 128 * (64 + 312))
    assert of(1.0, 128) - of(0.0, 128) == pytest.approx(more * (128 + 312) / (64 + 312))


def test_changes_of_images_are_priced_where_there_are_images():
    def of(views=0, stage=None, **augment):
        finetune = {"epochs": 2, "blocks": 1, **(stage or {})}
        data = {"views": views, "augment": augment}
        return stages(data=data, training={"finetune": finetune})["finetune"]

    base = of().operations
    dear = [
        of(color=0.4),
        of(policy="trivial"),
        of(policy="rand", rand_operations=3),
        of(degrade=0.5),
        of(stage={"fourier": 0.5}),
        of(stage={"adain": 0.5}),
    ]
    assert all(each.operations > base for each in dear)
    assert dear[2].operations - base == pytest.approx(3 * (dear[1].operations - base))
    assert of(degrade=1.0).operations - base == pytest.approx(2 * (dear[3].operations - base))
    # Of cached activations they were made once.
    assert of(2, policy="trivial", degrade=0.5).operations == of(2).operations


def test_fixmatch_changes_strong_views_and_labelled_images_weakly():
    def of(method, policy, mu=1, **finetune):
        training = {"method": method, "finetune": {"epochs": 2, **finetune}}
        if method == "fixmatch":
            training["fixmatch"] = {"mu": mu}
        data = {"augment": {"policy": policy}}
        return stages(data=data, training=training)["finetune"].operations

    of_all = of("single", "trivial") - of("single", "none")
    for mu in (1, 7):
        more = of("fixmatch", "trivial", mu) - of("fixmatch", "none", mu)
        assert more == pytest.approx(mu * of_all)
    # Labelled images alone swap amplitudes with each other.
    swapped = of("single", "none", fourier=0.5) - of("single", "none")
    more = of("fixmatch", "none", 7, fourier=0.5) - of("fixmatch", "none", 7)
    assert more == pytest.approx(swapped)


def test_images_without_labels_do_not_grow_with_the_others():
    def of(method, start):
        stage = {"epochs": 2, "start_size": start, "blocks": 2, "unfreeze": 1}
        training = {"method": method, "finetune": stage, "fixmatch": {"mu": 7}}
        changes = {"data": {"image_size": 64, "eval_image_size": 64}, "training": training}
        return stages(**changes)["finetune"].operations

    assert of("single", 0.5) < of("single", 1)
    further = of("fixmatch", 1) - of("single", 1)
    assert of("fixmatch", 0.5) - of("single", 0.5) == pytest.approx(further)


def test_every_scale_costs_a_pass_and_its_gradients_through_frozen_blocks():
    def of(scales, blocks="all", evaluated=64):
        changes = {"finetune": {"epochs": 2, "blocks": blocks}}
        if scales > 1:
            changes["method"] = "recurrent_attention"
            changes["recurrent_attention"] = {"scales": scales}
        data = {"image_size": 64, "eval_image_size": evaluated}
        return stages(data=data, training=changes)["finetune"].operations

    for scales in (2, 3, 4):
        # The zoom comes on top, the updates once.
        assert 0.9 * scales < of(scales) / of(1) < 1.3 * scales
    # Blocks that are not trained are passed backwards too, for all scales but the first.
    work = backbone_work(tiny_config().model.backbone, 1, 64)
    step = 3 * work.trained + 2 * work.frozen + 3 * zoom_work(64)
    shown = work.trained + work.frozen + zoom_work(64)
    more = of(2, blocks=1) - of(1, blocks=1)
    assert more == pytest.approx(600 * step + 100 * shown, rel=0.05)
    larger = of(2, evaluated=128) - of(2)
    assert larger > 1.9 * (of(1, evaluated=128) - of(1))


def test_attention_maps_cost_their_own_work_and_each_further_pass():
    def of(**settings):
        changes = {"method": "counterfactual_attention", "counterfactual_attention": settings}
        changes = {**(changes if settings else {}), "finetune": {"epochs": 2, "blocks": "all"}}
        return stages(data={"image_size": 64}, training=changes)["finetune"].operations

    alone = {"weight": 0, "crop": 0, "drop": 0, "maps": 8, "width": 16}
    config = tiny_config(data={"image_size": 64})
    channels, height, width = map_shape(config.model.backbone, 64)
    sizes = AttentionSettings(8, feature_size(config), 16)
    own = attention_work(channels, height * width, sizes)
    # A step of the training images, and the validation images once.
    assert of(**alone) - of() == pytest.approx(own * (3 * 600 + 100))
    # Random attention is pooled too, and its features pass the head.
    more = of(**{**alone, "weight": 1}) - of(**alone)
    assert more > 3 * 600 * own
    for further, changes in ((2, {"crop": 1}), (3, {"crop": 1, "drop": 0.5})):
        ratio = of(**{**alone, **changes}) / of(**alone)
        assert 0.85 * further < ratio < further


def test_a_stage_without_epochs_costs_nothing():
    assert set(stages()) == {"head"}
    assert set(stages(training={"head": {"epochs": 0}, "finetune": {"epochs": 1}})) == {"finetune"}


def test_a_part_of_the_blocks_costs_less_than_all_of_them():
    def of(**finetune):
        return stages(training={"finetune": {"epochs": 2, **finetune}})["finetune"]

    whole = of()
    for part in ("norms", "biases", "lora", "dora"):
        work = of(train=part)
        assert 0.5 < work.operations / whole.operations < 0.8, part
        assert work.kind != whole.kind
    assert of(train="lora", adapter_rank=64).operations > of(train="lora").operations


def test_blocks_that_join_later_cost_less():
    def of(**finetune):
        settings = {"epochs": 4, "blocks": 3, **finetune}
        return stages(training={"finetune": settings})["finetune"].operations

    whole, last = of(), of(blocks=1)
    each, every_other = of(unfreeze=1), of(unfreeze=2)
    # Of a pass forwards the blocks in front of the last one pay their share.
    assert last < every_other < each < whole
    two = of(blocks=2)
    # One block in the first epoch, two in the second, then three. Passes forwards of all are paid.
    assert each == pytest.approx((last + two + 2 * whole) / 4, rel=1e-6)
    assert of(unfreeze=4) == pytest.approx(last, rel=1e-6)
    assert of(unfreeze=1, train="norms") < of(train="norms")
    assert of(unfreeze=1, optimizer="muon") < of(optimizer="muon")


def test_small_images_of_early_epochs_cost_less():
    def of(size=128, **finetune):
        settings = {"epochs": 3, "blocks": 2, **finetune}
        data = {"image_size": size, "eval_image_size": 128}
        return stages(data=data, training={"finetune": settings})["finetune"]

    growing = of(start_size=0.5)
    sizes = [of(side).operations for side in (64, 96, 128)]
    assert growing.operations == pytest.approx(sum(sizes) / 3, rel=1e-6)
    assert growing.operations < of().operations


def test_statistics_of_schedule_free_weights_are_paid_where_there_are_batch_norms():
    def of(backbone, optimizer):
        settings = {"epochs": 2, "optimizer": optimizer}
        changes = {"model": {"backbone": backbone}, "training": {"finetune": settings}}
        return stages(**changes)["finetune"]

    for backbone, more in (("test_efficientnet", True), ("test_convnext", False)):
        adamw, free = (of(backbone, each) for each in ("adamw", "schedule_free"))
        assert (free.operations > adamw.operations) == more
        assert free.operations < 1.4 * adamw.operations
        assert free.kind != adamw.kind


def test_muon_is_dearer_than_adamw():
    def of(optimizer):
        return stages(training={"finetune": {"epochs": 2, "optimizer": optimizer}})["finetune"]

    adamw, sgd, muon = map(of, ("adamw", "sgd", "muon"))
    assert muon.operations > adamw.operations
    assert muon.kind != adamw.kind
    assert (sgd.operations, sgd.kind) == (adamw.operations, adamw.kind)
