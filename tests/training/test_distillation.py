"""Students of a teacher: what it tells them, that they learn it, and which teachers are refused."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml

from gsfl_tune.data import Augment
from gsfl_tune.experiment import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import bundle_from_network, load_bundle
from gsfl_tune.search.opening.begin import refuse_what_fails_later
from gsfl_tune.training import Training, train
from gsfl_tune.training.caches.teacher import Teacher, teacher_problem

from .checks import check_cached_as_whole, check_resumes
from .conftest import tiny_config
from .test_training import run

FINETUNE = {"epochs": 2, "batch_size": 24, "blocks": 1}


@pytest.fixture(scope="module")
def bundle(workspace, tmp_path_factory):
    """A trained teacher, larger images and another order of classes than the student's."""
    folder = tmp_path_factory.mktemp("teacher")
    config = tiny_config(
        data={"image_size": 40},
        model={"head": "plain"},
        training={"head": {"epochs": 20, "learning_rate": 0.01}},
    )
    training = run(Training(config, workspace, folder / "training"))
    network = training.trained_network()
    network.backbone.preprocessing = network.backbone.preprocessing._replace(
        mean=(0.4, 0.5, 0.6), std=(0.3, 0.2, 0.25)
    )
    return written(folder / "run" / "best", network, config, workspace)


def written(path, network, config, workspace, **changes):
    order = torch.arange(len(workspace.dataset.classes)).flip(0)
    with torch.no_grad():
        for tensor in (network.head.classifier.weight, network.head.classifier.bias):
            tensor.copy_(tensor[order])
    arguments = {
        "classes": [workspace.dataset.classes[place] for place in order],
        "groups": None,
        "side": workspace.dataset.pool.side,
        "reading": workspace.dataset.reading,
        "metrics": {},
        "trained_on": workspace.dataset.trained_on(validation=False),
    }
    return bundle_from_network(path, network, config, **(arguments | changes))


def student(bundle, **changes) -> Config:
    changes["loss"] = {"distill": {"weight": 2.0, "temperature": 2.0}} | changes.get("loss", {})
    changes["training"] = {"teacher": str(bundle)} | changes.get("training", {})
    return tiny_config(**changes)


def pixels(workspace, count):
    return torch.from_numpy(workspace.dataset.pool.gather(np.arange(count)))


def test_it_answers_as_its_bundle_does_in_the_order_of_the_students_classes(workspace, bundle):
    config = student(bundle)
    table = workspace.teacher_tables(config, views=False)[0]
    loaded = load_bundle(bundle, device="cpu")
    theirs = loaded.runtime.logits(pixels(workspace, 9).numpy())
    columns = [loaded.classes.index(name) for name in workspace.dataset.classes]
    torch.testing.assert_close(table[:9], theirs[:, columns], rtol=1e-4, atol=1e-4)
    # A second question reads the answers.
    assert torch.equal(workspace.teacher_tables(config, views=False)[0], table)


def test_it_sees_what_the_student_sees(workspace, bundle):
    config = student(bundle, data={"views": 2, "augment": {"flip": True}})
    teacher, views = workspace.teacher(config), workspace.views(config)
    tables = workspace.teacher_tables(config, views=True)
    assert not torch.equal(tables[0], tables[1])
    squares, mean, std = pixels(workspace, 8), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    for size in (40, 80):
        augment = Augment(config.data.augment, size, mean, std)
        for number, table in enumerate(tables):
            seen = augment.apply(squares, views.draw(number, augment)[:8])
            found = teacher.logits(seen, mean, std)
            if size == 40:
                torch.testing.assert_close(found, table[:8], rtol=1e-3, atol=1e-3)
            # Resized, it is the same picture, and nothing else is.
            distances = torch.cdist(found, table[:8])
            assert torch.equal(distances.argmin(1), torch.arange(8))


@pytest.mark.parametrize(
    ("data", "blocks"),
    [
        ({}, "all"),
        pytest.param({}, 1, marks=pytest.mark.slow),
        ({"views": 2}, 1),
        pytest.param({"views": 2}, "all", marks=pytest.mark.slow),
    ],
)
def test_resuming_equals_never_having_stopped(workspace, tmp_path, bundle, data, blocks):
    training = {"head": {"epochs": 2}, "finetune": {**FINETUNE, "blocks": blocks}}
    config = student(bundle, data=data, training=training)
    whole = check_resumes(config, workspace, tmp_path, stop_after=3)
    assert all(record["train/distill"] > 0 for record in whole.log.read())


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_the_cache_trains_as_the_whole_network_does(
    workspace, tmp_path, monkeypatch, bundle, mixup
):
    # As large as the student's images: nothing is resized.
    settings = student(
        bundle,
        data={"views": 2, "image_size": 40},
        training={
            "head": {"epochs": 0},
            "finetune": {**FINETUNE, "optimizer": "sgd", "learning_rate": 1e-3},
        },
    )
    if mixup:
        # Mixed activations are those of no image: both answers count by their shares.
        finetune = {**FINETUNE, "mixup": mixup}
        config = student(bundle, data={"views": 2}, training={"finetune": finetune})
        assert run(Training(config, workspace, tmp_path)).log.read()[-1]["train/distill"] > 0
        return
    check_cached_as_whole(settings, workspace, tmp_path, monkeypatch)


@pytest.mark.parametrize("views", [0, 2])
def test_a_student_learns_what_its_teacher_says(workspace, tmp_path, bundle, views):
    """Labels of no use: all that a student knows it has from its teacher."""
    apart = {}
    head = {"epochs": 20, "learning_rate": 0.01, "mixup": 0.3 if views else 0.0}
    for weight in (1e-6, 20.0):
        config = student(
            bundle,
            data={"views": views},
            model={"head": "plain", "dropout": 0.0},
            loss={"label_smoothing": 0.99, "distill": {"weight": weight, "temperature": 1.0}},
            training={"head": head},
        )
        training = run(Training(config, workspace, tmp_path / str(weight)))
        apart[weight] = training.log.read()[-1]["train/distill"]
    assert apart[20.0] < 0.5 * apart[1e-6]


def test_answers_to_mixed_features_are_those_to_both_images(workspace, tmp_path, bundle):
    config = student(bundle, training={"head": {"epochs": 1, "batch_size": 16, "mixup": 0.5}})
    training = Training(config, workspace, tmp_path)
    seen = []
    stage = training._current()
    step = stage._step
    stage._step = lambda batch, share=1.0: seen.append(batch) or step(batch, share)
    training.run_epoch()
    [table] = workspace.teacher_tables(config, views=False)
    for batch in seen:
        assert torch.equal(batch.targets.extras["teacher"], table[batch.positions])
        labels = torch.from_numpy(workspace.dataset.pool.labels)
        others = [
            int((table[training.context.train_positions] == row).all(1).nonzero()[0])
            for row in batch.targets.extras_of_others["teacher"]
        ]
        positions = training.context.train_positions[others]
        assert torch.equal(labels[positions], batch.targets.others)


def test_pieces_of_a_batch_train_what_the_batch_does(workspace, tmp_path, bundle):
    head = {"epochs": 1, "batch_size": 15, "optimizer": "sgd", "mixup": 0.4}
    finetune = {**FINETUNE, "epochs": 1, "optimizer": "sgd", "blocks": 1}
    config = student(bundle, model={"dropout": 0.0}, training={"head": head, "finetune": finetune})
    whole = run(Training(config, workspace, tmp_path / "whole"))
    pieces = run(Training(config, workspace, tmp_path / "pieces", pieces=3))
    first = [training.log.read()[0]["train/distill"] for training in (whole, pieces)]
    assert first[1] == pytest.approx(first[0], rel=1e-4)


def test_a_teacher_without_weight_changes_nothing(workspace, tmp_path, bundle):
    config = student(bundle, loss={"distill": {"weight": 0.0}})
    training = Training(config, workspace, tmp_path)
    assert training.context.teacher is None
    without = student(bundle, loss={"distill": {"weight": 0.0}}, training={"teacher": None})
    assert training._fingerprint == Training(without, workspace, tmp_path)._fingerprint
    assert "distill" not in training.loss.terms


def test_a_checkpoint_of_another_teacher_is_not_gone_on_with(workspace, tmp_path, bundle):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    config = student(copy)
    training = Training(config, workspace, tmp_path / "t")
    training.run_epoch()
    training.save()
    assert Training(config, workspace, tmp_path / "t").restore()
    network = training.trained_network()
    shutil.rmtree(copy)
    written(copy, network, tiny_config(model={"head": "plain"}), workspace)
    workspace._teachers.clear()
    assert not Training(config, workspace, tmp_path / "t").restore()


def changed(bundle, tmp_path, file, change):
    copy = shutil.copytree(bundle, tmp_path / "changed")
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(change(content)))
    return copy


def other_test(config):
    return {**config, "trained_on": {**config["trained_on"], "test": "0" * 32}}


@pytest.mark.parametrize(
    ("file", "change", "complaint"),
    [
        (
            "classes.json",
            lambda names: ["bell", *names[1:]],
            r"found 21 classes for the 21 of the data: it lacks \w+.*; it has besides bell; "
            "allowed are the same classes",
        ),
        (
            "config.json",
            lambda c: {**c, "preprocessing": {**c["preprocessing"], "fit": "pad"}},
            "made into squares by pad, data.fit is crop; allowed is the same",
        ),
        ("config.json", other_test, "has seen images of the test part; allowed is a bundle of"),
        (
            "config.json",
            lambda c: {**c, "architecture": {**c["architecture"], "latent_dim": 7}},
            "does not fit config.json",
        ),
    ],
    ids=["classes", "fit", "test images", "damaged"],
)
def test_a_teacher_that_cannot_be_one_is_refused(
    workspace, tmp_path, bundle, file, change, complaint
):
    copy = changed(bundle, tmp_path, file, change)
    with pytest.raises(UserError, match=r"training\.teacher: .*" + complaint):
        Training(student(copy), workspace, tmp_path / "t")


def test_names_of_a_teacher_may_be_decomposed(bundle, tmp_path):
    """As a bundle of an earlier version has them; both forms look the same."""
    copy = changed(bundle, tmp_path, "classes.json", lambda names: ["e\u0301pi", *names[1:]])
    names = json.loads((bundle / "classes.json").read_text())
    found = Teacher(copy, ["\u00e9pi", *names[1:]], "crop")
    assert found.digest == Teacher(bundle, names, "crop").digest


def no_record(config):
    return {key: value for key, value in config.items() if key != "trained_on"}


def with_validation(config):
    return {**config, "trained_on": {**config["trained_on"], "validation": True}}


def other_held_out(config):
    return {**config, "trained_on": {**config["trained_on"], "held_out": "0" * 32}}


def other_images(config):
    return {**config, "trained_on": {**config["trained_on"], "images": "0" * 32}}


@pytest.mark.parametrize(
    ("change", "notice"),
    [
        (lambda config: config, None),
        (no_record, "does not say whether it was trained on images of the validation or test"),
        (other_images, "does not say whether it was trained on images"),
    ],
)
def test_what_a_teacher_may_have_seen_is_said(workspace, tmp_path, bundle, change, notice):
    copy = changed(bundle, tmp_path, "config.json", change)
    said = workspace.teacher_notices(student(copy))
    assert len(said) == (notice is not None)
    assert notice is None or notice in said[0]


@pytest.mark.parametrize("change", [with_validation, other_held_out])
def test_a_teacher_that_has_seen_the_validation_images_is_refused(
    workspace, tmp_path, bundle, change
):
    (tmp_path / "large").mkdir()
    copy = changed(bundle, tmp_path / "large", "config.json", change)
    copy = copy.rename(copy.parent / "best")
    message = r"was trained on the validation images too.*gsfl-tune export .*large OUT --without"
    with pytest.raises(UserError, match=message):
        workspace.teacher_notices(student(copy))
    # What an earlier version began with it stays readable, and can be finished.
    assert workspace.teacher(student(copy)) is not None
    (said,) = workspace.teacher_notices(student(copy), begun=True)
    assert re.search(message + "-validation. What began with it goes on", said)


def test_a_training_that_began_with_such_a_teacher_can_be_finished(workspace, tmp_path, bundle):
    (tmp_path / "large").mkdir()
    copy = changed(bundle, tmp_path / "large", "config.json", with_validation)
    config = student(copy)
    experiment = Experiment.parse(yaml.safe_dump(config.model_dump(mode="json")))
    begun = Training(config, workspace, tmp_path / "begun")
    begun.run_epoch()
    begun.save()
    said: list[str] = []
    where = {"cache_dir": workspace.cache_dir, "notice": said.append}
    assert train(experiment, tmp_path / "begun", **where).finished
    assert "was trained on the validation images too" in said[0]
    with pytest.raises(UserError, match="was trained on the validation images too"):
        train(experiment, tmp_path / "anew", **where)
    # So it is with a search.
    refuse_what_fails_later(experiment, workspace, said.append, None, known_teachers=[copy])
    assert said[-1] == said[0]
    with pytest.raises(UserError, match="was trained on the validation images too"):
        refuse_what_fails_later(experiment, workspace, said.append, None)


def test_folds_leave_no_image_that_a_teacher_has_not_seen(workspace, bundle, tmp_path):
    with pytest.raises(UserError, match=r"all of which validate students with search\.folds"):
        workspace.teacher_notices(student(bundle, search={"folds": 3}))
    copy = changed(bundle, tmp_path, "config.json", other_images)
    assert workspace.teacher_notices(student(copy, search={"folds": 3}))


def test_what_is_no_bundle_is_named(tmp_path, bundle):
    assert teacher_problem(None) is None
    assert teacher_problem(str(bundle)) is None
    assert "allowed is the directory of a bundle, such as RUN/best" in teacher_problem("/nowhere")
    copy = changed(bundle, tmp_path, "config.json", lambda c: {**c, "export": {"format": "onnx"}})
    (copy / "model.onnx").touch()
    config = json.loads((copy / "config.json").read_text())
    config["sha256"]["model.onnx"] = ""
    (copy / "config.json").write_text(json.dumps(config))
    assert "found a bundle of format onnx, allowed is safetensors" in teacher_problem(str(copy))
