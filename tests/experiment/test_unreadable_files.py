"""Files that cannot be read, overrides, and which of several problems comes first."""

from pathlib import Path

import pytest

from gsfl_tune.experiment import Experiment, ExperimentError

HEAD = "name: t\ndata: {source: typefaces}\n"


def test_missing_file(tmp_path):
    with pytest.raises(ExperimentError, match=r"nothing\.yaml: does not exist"):
        Experiment.load(tmp_path / "nothing.yaml")


def test_directory(tmp_path):
    with pytest.raises(ExperimentError, match="is a directory"):
        Experiment.load(tmp_path)


def test_too_large(tmp_path):
    file = tmp_path / "large.yaml"
    file.write_text(HEAD + "#" * (1 << 20))
    with pytest.raises(ExperimentError, match=r"allowed at most 1,048,576"):
        Experiment.load(file)


def test_not_utf8(tmp_path):
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"name: t\ndata: {source: typefaces} # caf\xe9\n")
    with pytest.raises(ExperimentError, match=r"latin\.yaml:2: found the byte 0xe9.*UTF-8"):
        Experiment.load(file)


def test_too_many_values():
    with pytest.raises(ExperimentError, match="more than 10000 values"):
        Experiment.parse("a: [" + "1," * 20_000 + "]")


def test_nothing_is_run(tmp_path: Path):
    canary = tmp_path / "canary"
    text = f"name: !!python/object/apply:pathlib.Path.touch [!!python/name:{canary}]\n"
    with pytest.raises(ExperimentError):
        Experiment.parse(HEAD + text)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "model.latent_dimm=5",
            "--set model.latent_dimm: unknown key; did you mean model.latent_dim?",
        ),
        ("model.latent_dim", "--set: found 'model.latent_dim', allowed path=value"),
        ("model=5", "--set model: is a section"),
        ("model.latent_dim=many", "--set model.latent_dim: found 'many', allowed an integer"),
        ("model.dropout={float: [0.5, 0]}", "--set model.dropout: found the bounds [0.5, 0]"),
        ("model.dropout={float: [1, 0]", "--set model.dropout: not YAML"),
        ("model.dropout=!!python/name:os.system 1", "--set model.dropout: found the tag"),
    ],
)
def test_wrong_override(override, expected):
    with pytest.raises(ExperimentError) as caught:
        Experiment.parse(HEAD, overrides=[override])
    assert str(caught.value).startswith(expected)
    assert len(caught.value.problems) == 1


def test_file_comes_before_overrides():
    with pytest.raises(ExperimentError) as caught:
        Experiment.parse(HEAD + "model: {hed: 1}\n", file="f", overrides=["search.trials=0"])
    assert [problem.file for problem in caught.value.problems] == ["f", "--set"]


def test_checks_see_every_value_and_report_its_line():
    seen = []

    def check(value):
        seen.append(value)
        return "no such backbone" if value == "b" else None

    text = HEAD + "model:\n  backbone:\n    choice:\n    - a\n    - b\n"
    with pytest.raises(ExperimentError, match=r"f:7: model\.backbone: no such backbone"):
        Experiment.parse(text, file="f", checks={"model.backbone": check})
    assert seen == ["a", "b"]
