import pytest
import timm
import torch
from timm.models import build_model_with_cfg, register_model
from torch import nn

from gsfl_tune.experiment import Experiment
from gsfl_tune.losses import (
    Attributes,
    Center,
    GroupReversal,
    GroupUnlearning,
    Isda,
    Loss,
    MetricLearning,
    Sizes,
    Weighted,
)
from gsfl_tune.methods.pmg import Pmg
from gsfl_tune.models import head_parameters, layers_of
from gsfl_tune.training.pricing.cost import (
    checkpoint_bytes,
    class_count,
    largest_model,
    search_cost,
    term_bytes,
)
from gsfl_tune.training.pricing.one_step import largest_config
from gsfl_tune.training.pricing.prefix_caches import prefix_caches, whole_backbones
from gsfl_tune.training.pricing.pretraining import pretraining_price
from gsfl_tune.training.pricing.problems import cost_problems

HEAD = "name: t\ndata: {source: typefaces, image_size: 64}\n"


def test_largest_model_respects_conditions():
    experiment = Experiment.parse(
        HEAD + "model:\n  backbone: {choice: [resnet18, resnet50]}\n"
        "  pooling: {choice: [average, bilinear], when: {model.backbone: resnet18}}\n"
        "  latent_dim:\n"
        "  - {int: [64, 128], when: {model.pooling: bilinear}}\n"
        "  - {int: [64, 256], when: {model.pooling: average}}\n"
    )
    model = largest_model(experiment)
    # 128 channels by default: 16,384 dimensions, with the small latent part only.
    assert (model.backbone, model.pooling) == ("resnet18", "bilinear")
    assert (model.feature_dim, model.latent_dim, model.class_count) == (128**2, 128, 21)
    head = head_parameters("gsfl", 128**2, 128, 21)
    assert model.parameters == head + 11_176_512
    assert model.bytes == 16 * head + 4 * 11_176_512


def test_fine_tuning_pays_for_the_gradients_of_the_backbone():
    text = HEAD + "model: {backbone: resnet18}\n"
    frozen = largest_model(Experiment.parse(text))
    trained = largest_model(Experiment.parse(text, overrides=["training.finetune.epochs=1"]))
    assert trained.bytes - frozen.bytes == 12 * 11_176_512


def test_cost_counts_the_protocol():
    text = HEAD + (
        "training: {head: {epochs: {choice: [3, 5]}}, finetune: {epochs: {int: [0, 2]}}}\n"
        "search: {trials: 10, finalists: 2, final_seeds: 3, control: CONTROL}\n"
    )
    expected = {"off": (10, 70, 9), "matched": (10, 70, 15), "tuned": (20, 140, 18)}
    for control, (trials, epochs, retrainings) in expected.items():
        cost = search_cost(Experiment.parse(text.replace("CONTROL", control)))
        assert (cost.trials, cost.search_epochs, cost.retrainings) == (trials, epochs, retrainings)
        assert cost.final_epochs == 7 * retrainings


def test_classes_of_a_folder(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / "train" / name).mkdir(parents=True)
    text = f"name: t\ndata: {{source: folder, path: {tmp_path}}}\n"
    assert class_count(Experiment.parse(text)) == 3
    (tmp_path / "x.parquet").touch()
    text = f"name: t\ndata: {{source: parquet, path: {tmp_path / 'x.parquet'}}}\n"
    assert class_count(Experiment.parse(text)) == 1000


def test_activations_are_priced_where_they_are_cached():
    text = (
        "name: t\ndata: {source: typefaces, image_size: 64, views: 3}\n"
        "model: {backbone: {choice: [resnet18, levit_128s]}}\n"
        "training:\n  cache_precision: fp16\n"
        "  finetune: {epochs: 1, blocks: {choice: [1, 2, 4, all]}}\n"
    )
    found = prefix_caches(Experiment.parse(text))
    priced = [(c.backbone, c.blocks, c.image_bytes) for c in found if c.problem is None]
    # Four blocks are the whole of resnet18: nothing is frozen. Three views and the centre.
    two, one = 128 * 8 * 8 * 2 * 4, 256 * 4 * 4 * 2 * 4
    assert priced == [("resnet18", 2, two), ("resnet18", 1, one)]
    assert {(c.backbone, c.blocks) for c in found if c.problem} >= {("levit_128s", 1)}
    for off in ("data.views=0", "training.finetune.epochs=0", "training.finetune.blocks=all"):
        assert prefix_caches(Experiment.parse(text, overrides=[off])) == []


def test_a_size_that_may_be_that_of_the_training_is_priced_as_the_larger_one():
    text = (
        "name: t\ndata: {source: typefaces, image_size: 64, views: 1}\n"
        "model: {backbone: resnet18}\n"
        "training: {pretrain: true, finetune: {epochs: 1, blocks: 1}}\n"
        "pretrain: {epochs: 1}\n"
    )

    def bounds(*overrides):
        experiment = Experiment.parse(text, overrides=overrides)
        return (
            prefix_caches(experiment)[0].image_bytes,
            pretraining_price(experiment, 1).image_size,
        )

    whole = bounds()
    assert whole[1] == 64
    sizes = ("data.eval_image_size", "pretrain.image_size")
    assert bounds(*(f"{each}={{choice: [null, 32]}}" for each in sizes)) == whole
    smaller = bounds(*(f"{each}=32" for each in sizes))
    assert smaller[0] < whole[0]
    assert smaller[1] == 32


default_cfgs = {
    "single_block_net": {
        "input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.5,) * 3,
        "num_classes": 10, "first_conv": "conv", "classifier": "fc",
    }
}  # fmt: skip


class SingleBlockNet(nn.Module):
    """Nothing says where it could be divided."""

    def __init__(self, num_classes=10, in_chans=3):
        super().__init__()
        self.num_classes, self.num_features = num_classes, 8
        self.conv = nn.Conv2d(in_chans, 4, 3, stride=4)
        self.more = nn.Conv2d(4, 8, 3, stride=2)
        self.fc = nn.Linear(8, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x):
        return self.more(self.conv(x))

    def forward(self, x):
        return self.fc(self.forward_features(x).mean((2, 3)))


@pytest.fixture
def single_block_net():
    def single_block_net(pretrained=False, **options):
        return build_model_with_cfg(SingleBlockNet, "single_block_net", pretrained, **options)

    if not timm.is_model("single_block_net"):
        register_model(single_block_net)
    return "single_block_net"


def test_some_blocks_of_a_backbone_that_is_one_are_refused(single_block_net):
    text = HEAD + (
        f"model: {{backbone: {single_block_net}, weights: none}}\n"
        "training:\n"
        "  finetune:\n"
        "    epochs: 1\n"
        "    blocks: {choice: [all, 1, 2]}\n"
    )
    (problem,) = cost_problems(Experiment.parse(text))
    assert (problem.path, problem.line) == ("training.finetune.blocks", 7)
    assert problem.message == "found 1, but single_block_net is a single block; allowed: all"
    assert not cost_problems(Experiment.parse(text, overrides=["training.finetune.blocks=all"]))
    assert not cost_problems(Experiment.parse(text, overrides=["training.finetune.epochs=0"]))


def test_products_of_a_single_position_are_refused():
    text = HEAD + "model:\n  backbone: resnet18\n  pooling: {choice: [average, bilinear]}\n"
    assert not cost_problems(Experiment.parse(text))
    (problem,) = cost_problems(Experiment.parse(text, overrides=["data.image_size=32"]))
    assert (problem.path, problem.line) == ("model.pooling", 5)
    assert "bilinear" in problem.message
    assert "resnet18 gives a map of 1 x 1 positions for images of 32 px" in problem.message


def test_a_pooling_of_class_tokens_needs_one():
    text = HEAD + "model:\n  backbone: {choice: [test_vit, resnet18]}\n  pooling: cls\n"
    (problem,) = cost_problems(Experiment.parse(text))
    assert (problem.path, problem.line) == ("model.pooling", 5)
    assert problem.message == (
        "found cls, but 'resnet18' has no class token; allowed: average, bilinear"
    )
    assert not cost_problems(Experiment.parse(text, overrides=["model.backbone=test_vit"]))


def test_the_layers_behind_the_map_are_part_of_the_model():
    text = HEAD + "model: {backbone: mobilenetv3_small_050, head: linear}\n"
    average, native = (
        largest_model(Experiment.parse(text, overrides=[f"model.pooling={name}"]))
        for name in ("average", "native")
    )
    assert (average.feature_dim, native.feature_dim) == (288, 1024)
    convolution, classifier = 288 * 1024 + 1024, (1024 - 288) * native.class_count
    assert native.parameters - average.parameters == convolution + classifier


def test_class_tokens_are_no_feature_map():
    (problem,) = cost_problems(Experiment.parse(HEAD + "model: {backbone: pit_ti_224}\n"))
    assert problem.path == "model.backbone"
    assert "class tokens alone" in problem.message


def test_a_method_of_two_views_needs_two_fixed_ones():
    text = HEAD + "training: {finetune: {epochs: 1}, method: {choice: [single, two_views]}}\n"
    [problem] = cost_problems(Experiment.parse(text, overrides=["data.views=1"]))
    assert problem.path == "data.views"
    assert problem.message == (
        "found 1, but method two_views shows 2 views of an image at a time; "
        "allowed: 0, or 2 and more"
    )
    for views in (0, 2):
        assert not cost_problems(Experiment.parse(text, overrides=[f"data.views={views}"]))


def test_a_teacher_is_priced_and_sees_one_view(tmp_path):
    bundle = tmp_path / "best"
    bundle.mkdir()
    (bundle / "model.safetensors").write_bytes(b"0" * 12_000)
    text = HEAD + (
        f"training: {{teacher: {bundle}, finetune: {{epochs: 1}}, method: METHOD}}\n"
        "loss: {distill: {weight: {float: [0, 1]}}}\n"
    )
    alone = Experiment.parse(text.replace("METHOD", "rdrop"))
    without = alone.fixed({"loss.distill.weight": 0.0})
    assert largest_model(alone).bytes - largest_model(without).bytes == 12_000
    assert not cost_problems(alone)
    two = Experiment.parse(text.replace("METHOD", "{choice: [single, two_views]}"))
    [problem] = cost_problems(two)
    assert problem.path == "training.method"
    assert problem.message.startswith("found two_views with loss.distill, allowed methods of one")
    assert not cost_problems(two.fixed({"loss.distill.weight": 0.0}))


def test_the_step_that_is_rehearsed_has_all_views_of_the_space():
    text = HEAD + "training: {finetune: {epochs: 1}, method: {choice: [single, two_views]}}\n"
    assert largest_config(Experiment.parse(text)).training.method == "two_views"


def test_blocks_that_are_all_are_named():
    text = HEAD + "model: {backbone: resnet18}\ntraining: {finetune: {epochs: 1, blocks: BLOCKS}}"
    assert whole_backbones(Experiment.parse(text.replace("BLOCKS", "all"))) == []
    assert whole_backbones(Experiment.parse(text.replace("BLOCKS", "3"))) == []
    found = whole_backbones(Experiment.parse(text.replace("BLOCKS", "{choice: [3, 4, 9]}")))
    assert found == [("resnet18", 4, 4), ("resnet18", 9, 4)]


@pytest.mark.parametrize(
    ("settings", "term"),
    [
        ("{weight: 0.1}", MetricLearning()),
        ("{weight: 0.1, kind: soft_triple}", MetricLearning("soft_triple")),
        ("{weight: {float: [0, 1]}, kind: {choice: [arcface, subcenter_arcface]}, "
         "centers: {choice: [2, 5]}}", MetricLearning("subcenter_arcface", centers=5)),
        ("{weight: 0.1, centers: 7}", MetricLearning()),
    ],
)  # fmt: skip
def test_proxies_of_metric_learning_are_priced(settings, term):
    text = HEAD + f"model: {{latent_dim: 24}}\nloss: {{metric_learning: {settings}}}\n"
    loss = Loss(Sizes(48, 24, 21), {"metric_learning": Weighted(0.1, term)})
    counted = sum(parameter.numel() for parameter in loss.parameters())
    assert term_bytes(Experiment.parse(text), 24, 21) == 16 * counted


def test_a_classifier_of_the_shared_part_is_priced_where_there_is_such_a_part():
    text = HEAD + (
        "model: {latent_dim: 24, head: {choice: [gsfl, plain]}}\n"
        "loss: {group_reversal: {weight: 1, hidden: {int: [8, 10]}}}\n"
    )
    groups = torch.zeros(21, dtype=torch.int64)
    loss = Loss(Sizes(48, 24, 21, groups), {"group_reversal": Weighted(1.0, GroupReversal(10))})
    counted = sum(parameter.numel() for parameter in loss.parameters())
    experiment = Experiment.parse(text)
    assert term_bytes(experiment, 24, 21) == 16 * counted
    assert term_bytes(experiment.fixed({"model.head": "plain"}), 24, 21) == 0


def test_a_classifier_of_the_group_is_priced_by_the_most_groups():
    text = HEAD + (
        "model: {latent_dim: 24, groups: {count: {int: [2, 7]}}}\n"
        "loss: {group_unlearning: {weight: 1, hidden: {int: [8, 10]}}}\n"
    )
    groups = torch.arange(21) % 7
    terms = {"group_unlearning": Weighted(1.0, GroupUnlearning(10))}
    loss = Loss(Sizes(48, 24, 21, groups), terms)
    counted = sum(parameter.numel() for parameter in loss.parameters())
    assert term_bytes(Experiment.parse(text), 24, 21) == 16 * counted


def test_a_layer_of_attributes_is_priced():
    text = HEAD + "model: {latent_dim: 24}\nloss: {attributes: {weight: {float: [0, 1]}}}\n"
    sizes = Sizes(48, 24, 21, extras={"attributes": 3})
    loss = Loss(sizes, {"attributes": Weighted(1.0, Attributes())})
    counted = sum(parameter.numel() for parameter in loss.parameters())
    experiment = Experiment.parse(text, overrides=["data.attribute_columns=[a, b, c]"])
    assert term_bytes(experiment, 24, 21) == 16 * counted


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_what_terms_of_the_loss_keep_is_priced(covariance):
    experiment = Experiment.parse(
        HEAD
        + "model: {backbone: test_efficientnet, weights: none, latent_dim: 24, head: plain}\n"
        + "loss:\n  center: {weight: {float: [0, 0.1]}}\n"
        + f"  isda: {{weight: 1.0, covariance: {covariance}}}\n"
    )
    terms = {"center": Weighted(0.1, Center(0.5)), "isda": Weighted(1.0, Isda(0.5, covariance))}
    loss = Loss(Sizes(48, 24, 21), terms)
    counted = sum(b.numel() * b.element_size() for b in loss.buffers() if b.ndim > 1)
    assert term_bytes(experiment, 24, 21) == counted
    without = Experiment.parse(HEAD + "model: {backbone: test_efficientnet, weights: none}\n")
    assert term_bytes(without, 24, 21) == 0
    priced = largest_model(experiment)
    plain = largest_model(experiment.fixed({"loss.isda.weight": 0.0, "loss.center.weight": 0.0}))
    assert priced.bytes - plain.bytes == counted


def test_classifiers_of_jigsaws_are_priced():
    text = HEAD + (
        "model: {backbone: test_efficientnet, weights: none, head: plain}\n"
        "training:\n"
        "  method: {choice: [single, pmg]}\n"
        "  pmg: {levels: 1, width: {int: [8, 24]}}\n"
        "  finetune: {epochs: 1}\n"
    )
    method = Pmg(0.5, 1, 24)
    channels = layers_of("test_efficientnet", "all", 64)[0].channels
    method.build(Sizes(48, 24, 21, None, (channels,)))
    counted = sum(parameter.numel() for parameter in method.parameters())
    experiment = Experiment.parse(text)
    assert term_bytes(experiment, 24, 21) == 16 * counted
    assert term_bytes(experiment.fixed({"training.method": "single"}), 24, 21) == 0
    assert term_bytes(experiment.fixed({"training.finetune.epochs": 0}), 24, 21) == 0
    # What needs most memory for a step.
    assert largest_config(experiment).training.method == "pmg"


def test_styles_of_tokens_are_refused_before_anything_is_trained():
    text = HEAD + (
        "model: {backbone: {choice: [test_efficientnet, test_vit]}, weights: none}\n"
        "data: {image_size: 160}\n"
        "training: {finetune: {epochs: 1, blocks: {choice: [1, all]}, mixstyle: 0.5}}\n"
    )
    text = text.replace("data: {image_size: 160}\n", "")
    found = cost_problems(Experiment.parse(text, overrides=["data.image_size=160"]))
    assert [each.path for each in found] == ["training.finetune.mixstyle"]
    assert "found 0.5, but test_vit: what enters its blocks is not a map" in found[0].message


def test_settings_of_the_finetune_stage_that_a_backbone_does_not_know():
    text = HEAD + (
        "model: {backbone: {choice: [vgg11, test_vit]}, weights: none}\n"
        "data: {image_size: 160}\n"
        "training:\n"
        "  finetune:\n"
        "    epochs: 1\n"
        "    train: {choice: [all, norms]}\n"
        "    drop_path: {float: [0, 0.3]}\n"
    )
    text = text.replace("data: {image_size: 160}\n", "")
    overrides = ["data.image_size=160"]
    found = {
        each.path: each.message
        for each in cost_problems(Experiment.parse(text, overrides=overrides))
    }
    assert found == {
        "training.finetune.train": "found norms, but vgg11 has no norm with weights in its "
        "trained blocks; allowed: all",
        "training.finetune.drop_path": "found 0.3, but vgg11 takes no drop_path_rate; allowed: 0",
    }
    assert not cost_problems(
        Experiment.parse(text, overrides=[*overrides, "model.backbone=test_vit"])
    )
    when = text.replace("[0, 0.3]}", "[0, 0.3], when: {model.backbone: test_vit}}").replace(
        "[all, norms]}", "[all, norms], when: {model.backbone: test_vit}}"
    )
    assert not cost_problems(Experiment.parse(when, overrides=overrides))


def test_adapters_need_less_memory_for_the_optimiser():
    text = HEAD + "model: {backbone: resnet18, weights: none}\ntraining: {finetune: {epochs: 1}}\n"
    whole = Experiment.parse(text)
    adapted = Experiment.parse(text, overrides=["training.finetune.train=lora"])
    model = largest_model(whole)
    assert model.parameters == model.trained
    small = largest_model(adapted)
    assert small.parameters == model.parameters
    assert small.bytes < 0.4 * model.bytes
    assert checkpoint_bytes(adapted) < 0.5 * checkpoint_bytes(whole)
    both = ["training.finetune.train={choice: [lora, all]}"]
    assert largest_model(Experiment.parse(text, overrides=both)).bytes == model.bytes
    assert largest_config(Experiment.parse(text, overrides=both)).training.finetune.train == "all"
