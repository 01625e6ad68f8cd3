import warnings

import optuna
import pytest

from gsfl_tune.experiment import Categorical, Experiment, Float, Integer, UserError

TEXT = """
name: t
data: {source: typefaces}
model:
  head: {choice: [gsfl, plain]}
  dropout: {float: [0, 0.6], step: 0.1}
  size:
    choice:
      small: {latent_dim: 64, groups: {count: 2}}
      large: {latent_dim: 1024}
    default: large
loss:
  reconstruction: {float: [1e-6, 10], log: true, when: {model.head: gsfl}, else: 0}
training:
  head:
    optimizer: {choice: [adamw, sgd]}
    learning_rate:
    - {float: [1e-4, 1e-2], log: true, when: {training.head.optimizer: adamw}}
    - {float: [1e-2, 1], log: true, default: 0.1, when: {training.head.optimizer: sgd}}
  finetune:
    epochs: {int: [0, 10], default: 0}
    blocks: {choice: [all, 1, 2], when: {training.finetune.epochs: {gt: 0}, model.head: gsfl}}
"""


@pytest.fixture
def experiment():
    return Experiment.parse(TEXT)


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def names(experiment):
    return [parameter.name for parameter in experiment.space.parameters]


def test_parameters_have_stable_names(experiment):
    assert names(experiment) == [
        "model.head",
        "model.dropout",
        "model.size",
        "loss.reconstruction",
        "training.head.optimizer",
        "training.head.learning_rate@0",
        "training.head.learning_rate@1",
        "training.finetune.epochs",
        "training.finetune.blocks",
    ]


def test_conditions_come_after_what_they_name():
    experiment = Experiment.parse(
        "name: t\ndata: {source: typefaces}\n"
        "loss: {class_center: {float: [0, 1], when: {training.ema: {gt: 0}}}}\n"
        "training: {ema: {choice: [0, 0.9], when: {model.latent_dim: [64]}}}\n"
        "model: {latent_dim: {choice: [64, 128]}}\n"
    )
    assert names(experiment) == ["model.latent_dim", "training.ema", "loss.class_center"]


def test_only_one_alternative_is_drawn(experiment):
    adamw = experiment.configure({"training.head.optimizer": "adamw"})
    sgd = experiment.configure({"training.head.optimizer": "sgd"})
    assert adamw.training.head.learning_rate == pytest.approx(1e-3)
    assert sgd.training.head.learning_rate == 0.1
    params = {"training.head.optimizer": "sgd", "training.head.learning_rate@0": 5e-3}
    assert experiment.configure(params).training.head.learning_rate == 0.1


def test_named_mappings_are_merged_into_their_section(experiment):
    small = experiment.configure({"model.size": "small"}).model
    large = experiment.configure({"model.size": "large"}).model
    assert (small.latent_dim, small.groups.count) == (64, 2)
    assert (large.latent_dim, large.groups.count) == (1024, 16)
    assert experiment.default_params()["model.size"] == "large"
    assert experiment.values("model.latent_dim") == [64, 1024]
    assert experiment.values("model.groups.count") == [2, 16]


def test_a_condition_may_name_what_a_named_mapping_sets():
    experiment = Experiment.parse(
        "name: t\ndata: {source: typefaces}\nmodel:\n"
        "  dropout: {float: [0.1, 0.5], when: {model.latent_dim: {gt: 100}}, else: 0}\n"
        "  pooling_dim: {int: [16, 32], when: {model.size: small}}\n"
        "  size: {choice: {small: {latent_dim: 64}, large: {latent_dim: 512}}}\n"
    )
    assert experiment.space.active({"model.size": "small"}) == {"model.size", "model.pooling_dim"}
    assert experiment.space.active({"model.size": "large"}) == {"model.size", "model.dropout"}


def test_an_inactive_leaf_takes_its_else_or_the_schema_default(experiment):
    plain = experiment.configure({"model.head": "plain", "training.finetune.epochs": 3})
    assert plain.loss.reconstruction == 0
    assert plain.training.finetune.blocks == "all"


def test_what_can_never_hold_is_no_parameter(experiment):
    fixed = experiment.fixed({"training.finetune.epochs": 0, "training.head.optimizer": "sgd"})
    assert names(fixed) == [
        "model.head",
        "model.dropout",
        "model.size",
        "loss.reconstruction",
        "training.head.learning_rate@1",
    ]


def test_ranges_are_compared_with_conditions_statically():
    text = (
        "name: t\ndata: {source: typefaces}\nmodel:\n  latent_dim: {int: [64, 512]}\n"
        "  dropout: {float: [0, 0.5], when: {model.latent_dim: {gt: 512}}}\n"
        "  feature_scale:\n  - {float: [1, 2], when: {model.latent_dim: {lt: 128}}}\n"
        "  - {float: [2, 4], when: {model.latent_dim: {ge: 128}}}\n"
    )
    experiment = Experiment.parse(text)
    assert "model.dropout" not in names(experiment)
    # The alternatives leave no gap, so that the schema default is out of the question.
    assert experiment.bounds("model.feature_scale") == (1.0, 4.0)
    assert experiment.bounds("model.latent_dim") == (64, 512)


def test_tpe_with_groups_sees_conditional_parameters(experiment):
    sampler = optuna.samplers.TPESampler(
        multivariate=True, group=True, constant_liar=True, n_startup_trials=4, seed=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(sampler=sampler, direction="maximize")
    for _ in range(15):
        trial = study.ask()
        params = experiment.space.suggest(trial)
        assert set(params) == experiment.space.active(params)
        config = experiment.configure(params)
        study.tell(trial, config.model.dropout - config.training.head.learning_rate)
    assert len(study.trials) == 15


def test_a_fixed_space_draws_everything(experiment):
    study = optuna.create_study(
        sampler=optuna.samplers.CmaEsSampler(seed=0, warn_independent_sampling=False)
    )
    for _ in range(3):
        trial = study.ask()
        params = experiment.space.suggest(trial, everything=True)
        assert list(params) == names(experiment)
        experiment.configure(params)
        study.tell(trial, 0.0)


def test_clip_moves_into_the_space_and_says_so(experiment):
    params, notices = experiment.space.clip(
        {
            "model.latent_dim": 4096,
            "model.dropout": 0.47,
            "model.backbone": "vgg16",
            "training.head.optimizer": "sgd",
            "training.head.learning_rate": 5.0,
            "training.finetune.blocks": 2,
        }
    )
    assert params["model.dropout"] == 0.5
    assert params["training.head.learning_rate@1"] == 1.0
    assert "training.head.learning_rate@0" not in params
    assert "training.finetune.blocks" not in params
    assert notices == [
        "model.latent_dim: 4096 is left out, as model.size decides; 1024 is used",
        "model.dropout: 0.47 is not in float 0 to 0.6, step 0.1; 0.5 is used",
        "model.backbone: 'vgg16' is left out, as the experiment does not name it; "
        "'tf_efficientnet_lite0' is used",
        "training.head.learning_rate: 5.0 is not in float 0.01 to 1, log; 1.0 is used",
        "training.finetune.blocks: 2 is left out, as its condition does not hold",
    ]


def test_clip_keeps_what_fits(experiment):
    wanted = {
        "model.size": "small",
        "training.head.optimizer": "sgd",
        "training.head.learning_rate@1": 0.5,
        "model.latent_dim": 64,
    }
    params, notices = experiment.space.clip(wanted)
    assert notices == []
    assert params["model.size"] == "small"
    assert params["training.head.learning_rate@1"] == 0.5


def test_clip_refuses_unknown_paths(experiment):
    with pytest.raises(UserError, match=r"did you mean model\.dropout"):
        experiment.space.clip({"model.dropuot": 0.1})


def test_distributions_agree_with_optuna():
    pairs = [
        (Integer(1, 10, step=4), optuna.distributions.IntDistribution(1, 9, step=4)),
        (Float(0, 1, step=0.3), optuna.distributions.FloatDistribution(0, 0.9, step=0.3)),
        (Float(0, 0.3, step=0.1), optuna.distributions.FloatDistribution(0, 0.3, step=0.1)),
        (Integer(8, 64, log=True), optuna.distributions.IntDistribution(8, 64, log=True)),
    ]
    for ours, theirs in pairs:
        assert (ours.low, ours.high) == (theirs.low, theirs.high)
        for value in (ours.low, ours.high, ours.default, ours.clip(3.4)):
            assert theirs._contains(theirs.to_internal_repr(value))


def test_defaults_of_distributions():
    assert Categorical(("b", "a")).default == "b"
    assert Integer(64, 1024, log=True).default == 256
    assert Integer(0, 10, step=5).default == 5
    assert Integer(0, 12, step=4).default == 8
    assert Float(1e-4, 1e-2, log=True).default == pytest.approx(1e-3)
    assert Float(0, 1, step=0.3).default == pytest.approx(0.6)
    assert Float(0, 1, default=0).default == 0.0


def test_one_and_true_are_two_choices():
    both = Categorical((1, True, 0))
    assert both.clip(True) is True
    assert both.clip(1) == 1
    assert both.clip(1) is not True
    assert not Categorical((0, 1)).contains(False)
