"""What a user can get wrong: every message names the line, what was found and what is allowed."""

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError

HEAD = "name: t\ndata: {source: typefaces}\n"

# Name: (text, [(line, path, fragments of the message)]), all problems of the text.
WRONG: dict[str, tuple[str, list[tuple[int, str, list[str]]]]] = {
    "empty file": ("", [(1, "", ["nothing", "mapping"])]),
    "only comments": ("# nothing here\n", [(1, "", ["nothing"])]),
    "a list": ("- name: t\n", [(1, "", ["a list", "mapping with name, storage, data"])]),
    "a word": ("hello", [(1, "", ["'hello'", "mapping"])]),
    "not yaml": ("name: [t\n", [(2, "", ["not YAML"])]),
    "a tab": ("name: t\ndata:\n\tsource: typefaces\n", [(3, "", ["a tab", "spaces"])]),
    "two documents": (HEAD + "---\nname: u\n", [(3, "", ["second document"])]),
    "control character": ("name: t\ndata: \x07\n", [(2, "", ["U+0007"])]),
    "python tag": (
        HEAD + "model:\n  backbone: !!python/object/apply:os.system ['echo hi']\n",
        [(4, "model.backbone", ["!!python/object/apply:os.system"])],
    ),
    "own tag": (HEAD + "search: {trials: !env TRIALS}", [(3, "search.trials", ["!env"])]),
    "alias bomb": (
        HEAD
        + "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
        + "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: [*c, *c, *c, *c, *c, *c, *c, *c, *c]",
        [(6, "", ["aliases expand"])],
    ),
    "alias inside itself": (HEAD + "model: &m\n  groups: *m\n", [(4, "model.groups", ["itself"])]),
    "unknown alias": (HEAD + "model: *m\n", [(3, "", ["undefined alias 'm'"])]),
    "merge key": (HEAD + "model:\n  <<: {dropout: 0}\n", [(4, "model", ["<<"])]),
    "deep nesting": ("a: " + "[" * 500, [(1, "", ["deep"])]),
    "duplicate key": (
        HEAD + "model:\n  dropout: 0.1\n  head: gsfl\n  dropout: 0.2\n",
        [(6, "model.dropout", ["twice", "line 4"])],
    ),
    "number as key": (HEAD + "model: {1: 2}\n", [(3, "model", ["the key 1", "words"])]),
    "nan": (HEAD + "loss: {reconstruction: .nan}\n", [(3, "loss.reconstruction", [".nan"])]),
    "infinity": (
        HEAD + "loss: {reconstruction: 1e999}\n",
        [(3, "loss.reconstruction", ["finite"])],
    ),
    "missing name": ("data: {source: typefaces}\n", [(1, "name", ["is missing"])]),
    "missing path": (
        "name: t\ndata:\n  image_size: 96\n",
        [(2, "data.path", ["is missing", "auto"])],
    ),
    "missing data": ("name: t\n", [(1, "data.path", ["is missing"])]),
    "bad name": (
        "name: my run\ndata: {source: typefaces}\n",
        [(1, "name", ["'my run'", "matching"])],
    ),
    "unknown key": (
        HEAD + "model:\n  latent_dimm: 5\n",
        [(4, "model.latent_dimm", ["unknown key", "did you mean model.latent_dim?"])],
    ),
    "ranges of augmentation with views": (
        HEAD.replace("typefaces}", "typefaces, views: 4, augment: {scale: {float: [0.1, 1]}}}"),
        [(2, "data.augment.scale", ["float 0.1 to 1", "data.views", "one value or a choice"])],
    ),
    "searched views": (
        HEAD.replace("typefaces}", "typefaces, views: {int: [0, 4]}}"),
        [(2, "data.views", ["the same images"])],
    ),
    "another size for what a frozen head was not trained on": (
        HEAD.replace("typefaces}", "typefaces, eval_image_size: 256}"),
        [(2, "data.eval_image_size", ["found 256 without a finetune stage", "allowed null"])],
    ),
    "several GPUs for heads alone": (
        HEAD + "search:\n  resources: {gpus_per_trial: 2}\n",
        [(4, "search.resources.gpus_per_trial", ["found 2 without a finetune stage", "allowed 1"])],
    ),
    "a term of the shared part without one": (
        HEAD + "model: {head: {choice: [plain, linear]}}\nloss:\n  group_reversal: {weight: 0.5}\n",
        [
            (
                5,
                "loss.group_reversal.weight",
                ["found 0.5 with model.head plain, linear", "allowed 0, or model.head: gsfl"],
            )
        ],
    ),
    "distillation without a teacher": (
        HEAD + "loss:\n  distill: {weight: {float: [0, 2]}}\n",
        [
            (
                4,
                "loss.distill.weight",
                [
                    "found 2 without training.teacher",
                    "allowed 0, or training.teacher: the directory",
                ],
            )
        ],
    ),
    "a classifier from texts that do not exist": (
        HEAD + "model: {classifier_init: {choice: [random, class_text]}}\n",
        [(3, "model.classifier_init", ["without data.class_text", "a file of embeddings"])],
    ),
    "a classifier from texts that nothing embeds": (
        HEAD.replace("typefaces}", f"typefaces, class_text: '{__file__}'}}")
        + "model: {classifier_init: class_text}\n",
        [(3, "model.classifier_init", ["without data.text_model and data.text_weights", ".npy"])],
    ),
    "attributes of images that have none": (
        HEAD + "loss: {attributes: {weight: {float: [0, 1]}}}\n",
        [(3, "loss.attributes.weight", ["found 1 with source typefaces", "allowed 0, source cub"])],
    ),
    "pseudo-labels of nothing": (
        HEAD + "training: {method: {choice: [single, fixmatch]}, finetune: {epochs: 1}}\n",
        [(3, "training.method", ["found fixmatch without data.unlabelled", "a folder"])],
    ),
    "pseudo-labels of features": (
        HEAD.replace("typefaces}", f"typefaces, views: 2, unlabelled: '{__file__}'}}")
        + "training: {method: fixmatch}\n",
        [
            (3, "training.method", ["found fixmatch without a finetune stage"]),
            (3, "training.method", ["found fixmatch with data.views 2, allowed data.views: 0"]),
        ],
    ),
    "colours of cached activations": (
        HEAD.replace("typefaces}", "typefaces, views: 4}")
        + "training:\n  finetune: {epochs: 1, blocks: 2, fourier: 0.5}\n",
        [(4, "training.finetune.fourier", ["found 0.5 with data.views", "blocks: all"])],
    ),
    "channel statistics of cached activations": (
        HEAD.replace("typefaces}", "typefaces, views: 4}")
        + "training:\n  finetune: {epochs: 1, blocks: 2, adain: 0.2}\n",
        [(4, "training.finetune.adain", ["found 0.2 with data.views", "blocks: all"])],
    ),
    "growing images of cached activations": (
        HEAD.replace("typefaces}", "typefaces, views: 4}")
        + "training:\n  finetune: {epochs: 1, blocks: 2, start_size: {choice: [1, 0.5]}}\n",
        [(4, "training.finetune.start_size", ["found 0.5 with data.views", "allowed 1,"])],
    ),
    "wrong section": (
        HEAD + "loss:\n  latent_dim: 5\n",
        [(4, "loss.latent_dim", ["did you mean model.latent_dim?"])],
    ),
    "unknown section": (HEAD + "modle: {dropout: 0}\n", [(3, "modle", ["did you mean model?"])]),
    "unlike anything": (HEAD + "zzz: 1\n", [(3, "zzz", ["allowed name, storage, data, model"])]),
    "section is a number": (
        HEAD + "model: 5\n",
        [(3, "model", ["found 5", "mapping with backbone"])],
    ),
    "text for a number": (
        HEAD + "model: {dropout: lots}\n",
        [(3, "model.dropout", ["'lots'", "at least 0 and below 1"])],
    ),
    "float for an integer": (
        HEAD + "model: {latent_dim: 64.5}\n",
        [(3, "model.latent_dim", ["64.5"])],
    ),
    "truth for a number": (
        HEAD + "model: {dropout: true}\n",
        [(3, "model.dropout", ["found true"])],
    ),
    "yes is no truth": (HEAD + "data2: 1\n", [(3, "data2", ["did you mean data?"])]),
    "null": (HEAD + "model: {latent_dim: }\n", [(3, "model.latent_dim", ["nothing (null)"])]),
    "out of range": (HEAD + "model: {latent_dim: 1}\n", [(3, "model.latent_dim", ["at least 2"])]),
    "unknown word": (
        HEAD + "model: {pooling: bilinaer}\n",
        [(3, "model.pooling", ["average, bilinear, compact_bilinear", "did you mean bilinear?"])],
    ),
    "unknown metric": (
        HEAD + "search: {metric: validation/acuracy}\n",
        [(3, "search.metric", ["did you mean validation/accuracy?"])],
    ),
    "reversed bounds": (
        HEAD + "model: {dropout: {float: [0.7, 0.1]}}\n",
        [(3, "model.dropout", ["[0.7, 0.1]", "lower one first"])],
    ),
    "log from zero": (
        HEAD + "loss: {reconstruction: {float: [0, 1], log: true}}\n",
        [(3, "loss.reconstruction", ["log", "0"])],
    ),
    "log with step": (
        HEAD + "model: {latent_dim: {int: [128, 512], log: true, step: 64}}\n",
        [(3, "model.latent_dim", ["log and step"])],
    ),
    "step of zero": (
        HEAD + "model: {dropout: {float: [0, 0.5], step: 0}}\n",
        [(3, "model.dropout", ["step 0"])],
    ),
    "no choices": (
        HEAD + "model: {head: {choice: []}}\n",
        [(3, "model.head.choice", ["no choices"])],
    ),
    "choice twice": (
        HEAD + "model: {latent_dim: {choice: [64, 128, 64]}}\n",
        [(3, "model.latent_dim.choice", ["64 twice"])],
    ),
    "choice not allowed": (
        HEAD + "model:\n  head:\n    choice:\n    - gsfl\n    - plan\n",
        [(7, "model.head.choice", ["'plan'", "did you mean plain?"])],
    ),
    "choice is a word": (
        HEAD + "model: {head: {choice: gsfl}}\n",
        [(3, "model.head.choice", ["'gsfl'", "a list"])],
    ),
    "bound out of range": (
        HEAD + "model: {dropout: {float: [0, 1.0]}}\n",
        [(3, "model.dropout.float", ["1.0", "below 1"])],
    ),
    "three bounds": (
        HEAD + "model: {dropout: {float: [0, 0.1, 0.2]}}\n",
        [(3, "model.dropout.float", ["a list of 3", "[low, high]"])],
    ),
    "float range for an integer": (
        HEAD + "model: {latent_dim: {float: [64, 128]}}\n",
        [(3, "model.latent_dim.float", ["a float range", "an integer"])],
    ),
    "range for a word": (
        HEAD + "model: {head: {int: [1, 2]}}\n",
        [(3, "model.head.int", ["a range", "gsfl, plain"])],
    ),
    "default outside": (
        HEAD + "model: {dropout: {float: [0, 0.5], default: 0.6}}\n",
        [(3, "model.dropout", ["default 0.6", "0 to 0.5"])],
    ),
    "default not a choice": (
        HEAD + "model: {latent_dim: {choice: [64, 128], default: 65}}\n",
        [(3, "model.latent_dim.choice", ["default 65", "64, 128"])],
    ),
    "no distribution": (
        HEAD + "model: {dropout: {uniform: [0, 1]}}\n",
        [(3, "model.dropout", ["uniform", "float: [low, high]"])],
    ),
    "two distributions": (
        HEAD + "model: {dropout: {float: [0, 0.5], choice: [0]}}\n",
        [(3, "model.dropout", ["choice and float"])],
    ),
    "unknown option": (
        HEAD + "model: {dropout: {float: [0, 0.5], defualt: 0}}\n",
        [(3, "model.dropout.defualt", ["did you mean default?"])],
    ),
    "list without choice": (
        HEAD + "model: {latent_dim: [64, 128]}\n",
        [(3, "model.latent_dim", ["{choice: [...]}"])],
    ),
    "section searched": (
        HEAD + "model:\n  choice: {a: {dropout: 0.1}}\n",
        [(4, "model.choice", ["model.variant"])],
    ),
    "named mappings on a leaf": (
        HEAD + "model: {dropout: {choice: {a: {dropout: 0.1}}}}\n",
        [(3, "model.dropout.choice", ["key of their own"])],
    ),
    "unknown key in a named mapping": (
        HEAD
        + "model:\n  size:\n    choice:\n      small: {latent: 64}\n      big: {latent_dim: 512}\n",
        [(6, "model.size.choice.small.latent", ["did you mean model.latent_dim?"])],
    ),
    "set twice": (
        HEAD + "model:\n  latent_dim: 5\n  size: {choice: {a: {latent_dim: 64}, b: {}}}\n",
        [(5, "model.size", ["model.latent_dim", "as line 4 does"])],
    ),
    "when names nothing": (
        HEAD + "model:\n  dropout:\n    float: [0, 0.5]\n    when: {model.hed: gsfl}\n",
        [(6, "model.dropout.when.model.hed", ["did you mean model.head?"])],
    ),
    "when never possible": (
        HEAD + "model: {dropout: {float: [0, 0.5], when: {model.head: gsfll}}}\n",
        [(3, "model.dropout.when.model.head", ["'gsfll'", "gsfl, plain"])],
    ),
    "when compares words": (
        HEAD + "model: {dropout: {float: [0, 0.5], when: {model.head: {gt: 1}}}}\n",
        [(3, "model.dropout.when.model.head", ["> 1", "gsfl, plain"])],
    ),
    "when with an unknown comparison": (
        HEAD + "model: {dropout: {float: [0, 0.5], when: {training.ema: {gte: 1}}}}\n",
        [(3, "model.dropout.when.training.ema", ["gte", "gt, ge, lt, le"])],
    ),
    "else without when": (
        HEAD + "model: {dropout: {float: [0, 0.5], else: 0}}\n",
        [(3, "model.dropout.else", ["without `when`"])],
    ),
    "conditions in a circle": (
        HEAD + "model:\n"
        "  dropout: {float: [0, 0.5], when: {model.latent_dim: {gt: 100}}}\n"
        "  latent_dim: {int: [64, 512], when: {model.dropout: {gt: 0.1}}}\n",
        [(4, "model.dropout", ["cycle: model.dropout -> model.latent_dim -> model.dropout"])],
    ),
    "alternatives that overlap": (
        HEAD + "model:\n  dropout:\n"
        "  - {float: [0, 0.5], when: {model.latent_dim: {le: 128}}}\n"
        "  - {float: [0.5, 0.7], when: {model.latent_dim: {ge: 128}}}\n"
        "  latent_dim: {int: [64, 512]}\n",
        [(6, "model.dropout@1", ["model.dropout@0", "exclude each other"])],
    ),
    "alternative without when": (
        HEAD + "model:\n  dropout:\n  - {float: [0, 0.5], when: {model.head: gsfl}}\n"
        "  - {float: [0.5, 0.7]}\n",
        [(6, "model.dropout@1", ["without `when`"])],
    ),
    "search is not searched": (
        HEAD + "search: {trials: {int: [1, 10]}}\n",
        [(3, "search.trials", ["an integer", "how trials are compared"])],
    ),
    "data are not searched": (
        HEAD + "model: {}\ntraining: {seed: {int: [0, 9]}}\n",
        [(4, "training.seed", ["search.final_seeds"])],
    ),
    "source is not searched": (
        "name: t\ndata:\n  source: {choice: [cub, typefaces]}\n",
        [(3, "data.source", ["same images"])],
    ),
    "missing path of cub": (
        "name: t\ndata: {source: cub}\n",
        [(2, "data.path", ["missing", "cub"])],
    ),
    "root does not exist": (
        "name: t\ndata:\n  source: csv\n  path: /tmp\n  root: /nowhere/at/all\n",
        [(5, "data.root", ["/nowhere/at/all", "does not exist"])],
    ),
    "path does not exist": (
        "name: t\ndata:\n  source: folder\n  path: /nowhere/at/all\n",
        [(4, "data.path", ["/nowhere/at/all", "does not exist"])],
    ),
    "unset variable": (
        "name: t\ndata:\n  source: folder\n  path: $GSFL_NO_SUCH_VARIABLE/x\n",
        [(4, "data.path", ["$GSFL_NO_SUCH_VARIABLE is not set"])],
    ),
    "no download": (
        "name: t\ndata: {source: cars, path: /tmp, download: true}\n",
        [(2, "data.download", ["cars", "aircraft, flowers102, pets"])],
    ),
    "unknown weights": (
        HEAD + "model: {weights: imagenett}\n",
        [(3, "model.weights", ["'imagenett'", "did you mean imagenet?"])],
    ),
    "weights do not exist": (
        HEAD + "model:\n  weights: {choice: [none, /nowhere/w.pt]}\n",
        [(4, "model.weights", ["/nowhere/w.pt", "existing file"])],
    ),
    "taxonomy without a file": (
        "name: t\ndata: {source: folder, path: /tmp}\nmodel: {groups: {method: taxonomy}}\n",
        [(3, "model.groups.taxonomy", ["missing", "CSV"])],
    ),
    "taxonomy file does not exist": (
        HEAD + "model: {groups: {method: taxonomy, taxonomy: /nowhere.csv}}\n",
        [(3, "model.groups.taxonomy", ["/nowhere.csv", "does not exist"])],
    ),
    "no epochs at all": (
        HEAD + "training:\n  head: {epochs: 0}\n",
        [(3, "training", ["both 0"])],
    ),
    "enqueue names nothing": (
        HEAD + "search:\n  enqueue:\n  - model.latent_dim: 64\n    model.dropuot: 0.1\n",
        [(6, "search.enqueue[0].model.dropuot", ["did you mean model.dropout?"])],
    ),
    "enqueue of a wrong type": (
        HEAD + "search:\n  enqueue:\n  - {model.latent_dim: many}\n",
        [(5, "search.enqueue[0].model.latent_dim", ["'many'", "an integer"])],
    ),
    "several at once": (
        "name: t\nname: u\ndata: {source: typeface}\nmodel:\n  dropout: 2\n  hed: gsfl\n"
        "  latent_dim: {int: [9, 5]}\nsearch: {trials: 0}\n",
        [
            (2, "name", ["twice"]),
            (3, "data.source", ["did you mean typefaces?"]),
            (5, "model.dropout", ["found 2"]),
            (6, "model.hed", ["did you mean model.head?"]),
            (7, "model.latent_dim", ["[9, 5]"]),
            (8, "search.trials", ["at least 1"]),
        ],
    ),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_message_names_place_and_allowed(case):
    text, expected = case
    with pytest.raises(ExperimentError) as caught:
        Experiment.parse(text, file="my.yaml")
    problems = caught.value.problems
    assert len(problems) == len(expected), [str(problem) for problem in problems]
    for problem, (line, path, fragments) in zip(problems, expected, strict=True):
        assert problem.line == line
        assert problem.path == path or not path
        for fragment in fragments:
            assert fragment in problem.message
        assert str(problem).startswith(f"my.yaml:{line}: ")
        assert "\n" not in str(problem)
