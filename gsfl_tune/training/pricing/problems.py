"""Models of a space that do not fit, said before anything is trained."""

from __future__ import annotations

from gsfl_tune.activity import activity
from gsfl_tune.experiment import Experiment, Problem
from gsfl_tune.experiment.further_checks import ONE_OR_TWO
from gsfl_tune.experiment.units import binary_size
from gsfl_tune.methods import method_class
from gsfl_tune.models import (
    BackboneError,
    has_screening,
    hub_problem,
    licence_problem,
    map_shape,
    pooling_class,
    probe,
    reading_problem,
    second_layer_of,
    second_layer_problem,
    stream_names,
    stream_weights,
)
from gsfl_tune.training.pricing.cases import backbone_of, cases
from gsfl_tune.training.pricing.cost import (
    largest_model,
    memory_of_a_trial,
    pretrained,
    teachers,
)
from gsfl_tune.training.pricing.finetune_problems import finetune_problems, problems_of_snr
from gsfl_tune.training.pricing.method_problems import problems_of_methods


@activity("looking at the models")
def cost_problems(experiment: Experiment) -> list[Problem]:
    """Returns models of the space that cannot fit or have other licences than those allowed."""
    problems = [*_hub_weights(experiment), *_licences(experiment)]

    def add(path: str, message: str) -> None:
        problems.append(Problem(*experiment.locate(path), path, message))

    for case in cases(experiment):
        backbone = backbone_of(case)
        pooling = case.values("model.pooling")[0]
        if problem := _layer_problem(backbone):
            add("model.layer_b", problem)
            continue
        if problem := reading_problem(backbone, pooling_class(pooling).reads):
            add("model.pooling", f"found {pooling}, but {problem}; allowed: average, bilinear")
            continue
        started = pooling_class(pooling).starts_as
        if started and max(case.values("training.finetune.epochs")) == 0:
            add(
                "model.pooling",
                f"found {pooling} without a finetune stage, in which it is trained; allowed: "
                f"{started}, or training.finetune.epochs above 0",
            )
        if pooling == "screened" and (problem := _screening_problem(case)):
            add("model.pooling", f"found screened, but {problem}; allowed: average")
        sizes = [*case.values("data.image_size"), *case.values("data.eval_image_size")]
        for size in dict.fromkeys(size for size in sizes if size is not None):
            try:
                _, height, width = map_shape(backbone, size, pooling_class(pooling).reads)
            except BackboneError as error:
                add("model.backbone", str(error))
                continue
            if height * width < pooling_class(pooling).fewest_positions:
                add(
                    "model.pooling",
                    f"found {pooling}, but {backbone} gives a map of {height} x {width} positions "
                    f"for images of {size} px; allowed: average, or a larger data.image_size",
                )
        for path, message in (*finetune_problems(case), *problems_of_methods(case)):
            add(path, message)
    for message in problems_of_snr(experiment):
        add("training.finetune.snr", message)
    for name in experiment.values("training.method"):
        views = method_class(name).views
        few = [n for n in experiment.values("data.views") if 0 < n < views]
        if few:
            add(
                "data.views",
                f"found {few[0]}, but method {name} shows {views} views of an image "
                f"at a time; allowed: 0, or {views} and more",
            )
        if views > 1 and teachers(experiment):
            add(
                "training.method",
                f"found {name} with loss.distill, allowed methods of one view of an image: the "
                "teacher sees what the student sees",
            )
    if problems:
        return list(dict.fromkeys(problems))
    model = largest_model(experiment)
    available, whose = memory_of_a_trial(experiment, model.backbone)
    if model.bytes > available:
        file, line = experiment.locate("model.pooling")
        message = (
            f"found a largest model of {binary_size(model.bytes)} ({model.backbone}, "
            f"{model.pooling} pooling to {model.feature_dim:,} dimensions, "
            f"latent_dim {model.latent_dim}), "
            f"allowed {binary_size(available)}, the {whose} of a trial"
        )
        problems.append(Problem(file, line, "model", message))
    return problems


def _hub_weights(experiment: Experiment) -> list[Problem]:
    """Returns weights on the hub that are not those of their backbone."""
    asked = {
        (*each, second): None
        for backbone, weights, _ in pretrained(experiment)
        for second, each in enumerate(stream_weights(backbone, weights))
    }
    problems = []
    for backbone, weights, second in asked:
        if message := hub_problem(backbone, weights):
            own = second and weights in experiment.values("model.weights_b")
            path = "model.weights_b" if own else "model.weights"
            problems.append(Problem(*experiment.locate(path, weights), path, message))
    return problems


def _licences(experiment: Experiment) -> list[Problem]:
    """Returns backbones whose weights have other licences than the experiment allows."""
    allowed = experiment.defaults().model.licenses
    if allowed is None:
        return []
    problems = []
    for backbone, weights, _ in pretrained(experiment):
        if message := licence_problem(backbone, weights, allowed):
            where = experiment.locate("model.backbone", backbone)
            problems.append(Problem(*where, "model.backbone", message))
    return problems


def _layer_problem(backbone: str) -> str | None:
    """Says why a backbone cannot have the second layer that its name asks for, or None."""
    whole, place = second_layer_of(backbone)
    if not place:
        return None
    names = stream_names(backbone)
    if len(names) > 1:
        return f"found {place} with model.backbone_b {names[1]}, {ONE_OR_TWO}"
    if (problem := second_layer_problem(backbone)) is None:
        return None
    highest = probe(whole).blocks - 1
    allowed = "0, or another block" if place <= highest else f"0 to {highest}" if highest else "0"
    return f"found {place}, but {problem}; allowed: {allowed}"


def _screening_problem(case: Experiment) -> str | None:
    """Says why the weights of a case may lack a screening head, or None."""
    if True in case.values("training.pretrain") and min(case.values("pretrain.lcr.weight")) == 0:
        return "pretrain.lcr.weight is 0, so a pretraining learns no screening head"
    if False in case.values("training.pretrain"):
        for weights in case.values("model.weights"):
            if not has_screening(weights):
                return (
                    f"model.weights {weights} has no screening head, which `gsfl-tune pretrain` "
                    "writes with pretrain.lcr.weight above 0"
                )
    return None
