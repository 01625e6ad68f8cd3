"""Fixed views and half precision: what is computed, when, and what the head trains on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from gsfl_tune.data import Augment
from gsfl_tune.evidence.yardstick import measure_probe
from gsfl_tune.experiment.errors import EnvironmentProblem
from gsfl_tune.training import Training, Workspace

from .conftest import tiny_config

CPU = torch.device("cpu")


def with_views(count, **changes):
    augment = {"flip": True, "color": 0.2}
    return tiny_config(data={"views": count, "augment": augment}, **changes)


def fp16(count, **training):
    return with_views(count, training={"cache_precision": "fp16", **training})


def built(cache_dir):
    return {path.name for path in (cache_dir / "features").glob("*.npy")}


def run(training):
    while not training.finished:
        training.run_epoch()
    return training


def weights(training):
    training.save()
    return torch.load(training.checkpoint_path, weights_only=True)["module"]


def test_a_view_is_the_feature_of_the_image_as_the_view_changes_it(workspace):
    config = with_views(3)
    views, pool = workspace.views(config), workspace.dataset.pool
    features = workspace.view_features(config)
    assert [tensor.shape[0] for tensor in features] == [len(pool)] * 3
    extractor = workspace.extractor(config)
    backbone = extractor.backbone
    augment = Augment(config.data.augment, 32, *backbone.preprocessing)
    positions = torch.tensor([100, 3, 64])
    for view in (0, 2):
        squares = torch.from_numpy(pool.gather(positions.numpy()))
        with torch.inference_mode():
            maps = backbone(augment.apply(squares, views.draw(view, augment)[positions]))
            expected = functional.normalize(extractor.pooling()(maps), dim=1)
        assert torch.allclose(features[view][positions], expected, atol=1e-5)
    assert not torch.allclose(features[0], features[2], atol=1e-3)
    assert not torch.allclose(features[0], workspace.features(config), atol=1e-3)


def test_more_views_compute_only_the_new_ones(workspace, cache_dir):
    workspace.features(with_views(2))
    before = built(cache_dir)
    workspace.view_features(with_views(2, model={"backbone": "test_resnet"}))
    assert len(built(cache_dir) - before) == 2
    before = built(cache_dir)
    workspace.view_features(with_views(4, model={"backbone": "test_resnet"}))
    assert len(built(cache_dir) - before) == 2


@pytest.mark.parametrize(
    "data",
    [
        {"views": 2, "augment": {"flip": False}},
        {"views": 2, "augment": {"flip": True, "color": 0.1}},
        {"views": 2, "augment": {"flip": True, "color": 0.2}, "split": {"seed": 1}},
    ],
    ids=["flip", "colour", "seed"],
)
def test_what_changes_a_view_computes_new_ones_and_the_images_as_they_are_stay(workspace, data):
    one, other = with_views(2), tiny_config(data=data)
    first = workspace.view_features(one)[0].clone()
    plain = workspace.features(one).clone()
    assert not torch.equal(workspace.view_features(other)[0], first)
    assert torch.equal(workspace.features(other), plain)
    assert torch.equal(workspace.view_features(one)[0], first)


def test_the_head_trains_on_views_and_is_validated_without(workspace, tmp_path):
    plain = run(Training(tiny_config(), workspace, tmp_path / "plain"))
    viewed = run(Training(with_views(2), workspace, tmp_path / "viewed"))
    one, other = weights(plain), weights(viewed)
    assert any(not torch.equal(one[name], other[name]) for name in one)
    # The groups are those of the images as they are.
    assert np.array_equal(plain.groups, viewed.groups)

    from gsfl_tune.data.augment import center_crop

    network = viewed.trained_network()
    validation = workspace.dataset.validation_index
    images = torch.from_numpy(workspace.dataset.pool.gather(validation))
    with torch.inference_mode():
        features = network.features(center_crop(images, 32, *network.backbone.preprocessing))
        logits = network.head.infer(features)
    assert np.allclose(logits.numpy(), viewed.predict("validation").logits, atol=1e-5)


@pytest.mark.parametrize("config", [with_views(3), fp16(3)], ids=["fp32", "fp16"])
def test_resuming_equals_never_having_stopped(workspace, tmp_path, config):
    whole = run(Training(config, workspace, tmp_path / "whole"))
    first = Training(config, workspace, tmp_path / "parts")
    first.run_epoch()
    first.save()
    first.run_epoch()
    second = Training(config, workspace, tmp_path / "parts")
    assert second.restore()
    run(second)
    one, other = weights(whole), weights(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_half_precision_takes_half_the_space_and_hardly_changes_a_feature(workspace, cache_dir):
    full = workspace.features(tiny_config(data={"image_size": 30}))
    before = built(cache_dir)
    precision = {"cache_precision": "fp16"}
    half = workspace.features(tiny_config(data={"image_size": 30}, training=precision))
    assert half.dtype == torch.float16
    assert torch.allclose(half.float(), full, atol=1e-3)
    (name,) = built(cache_dir) - before
    size = (cache_dir / "features" / name).stat().st_size
    assert size == full.numel() * 2 + 128


def test_groups_probe_training_and_test_work_in_half_precision(workspace, tmp_path):
    for method in ("kmeans", "spectral"):
        config = fp16(2)
        groups = config.model.groups.model_copy(update={"method": method})
        model = config.model.model_copy(update={"groups": groups})
        groups = workspace.groups(config.model_copy(update={"model": model}))
        assert set(groups) <= {0, 1, 2}
        assert len(groups) == 21
    config = fp16(2, head={"epochs": 20, "learning_rate": 0.01})
    training = run(Training(config, workspace, tmp_path))
    records = training.log.read()
    assert records[-1]["train/cross_entropy"] < 0.9 * records[0]["train/cross_entropy"]
    predictions = training.predict("test")
    assert predictions.logits.dtype == np.float32
    probe, full = (measure_probe(workspace, each) for each in (config, tiny_config()))
    nll = full.validation["nll"]
    assert probe.validation["nll"] == pytest.approx(nll, abs=0.02)


def test_features_of_another_recipe_are_let_go(workspace):
    """A process that tries many backbones does not keep all their files in use."""
    config = with_views(2)
    workspace.view_features(config)
    workspace.view_features(with_views(2, model={"backbone": "test_resnet"}))
    states = {entry.what: entry.state for entry in entries_of(workspace)}
    assert states["test_resnet, none, 32 px, typefaces, view 1"] == "in use"
    assert states["test_efficientnet, none, 32 px, typefaces, view 1"] == "free"


def entries_of(workspace):
    from gsfl_tune.cache.entries import entries

    return [entry for entry in entries(workspace.cache_dir) if entry.kind == "features"]


def test_a_disk_that_fills_up_while_features_are_written(workspace, monkeypatch):
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    config = with_views(1, model={"pooling": "bilinear", "pooling_channels": 4})
    workspace.extractor(config)
    before = {entry.path for entry in entries_of(workspace)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        with pytest.raises(EnvironmentProblem, match="GSFL_TUNE_CACHE") as caught:
            workspace.view_features(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(workspace.cache_dir) in str(caught.value)
    assert {entry.path for entry in entries_of(workspace)} == before
    assert len(workspace.view_features(config)) == 1


# Asks for features when told to, says what it computes, and stops halfway if it is to.
ASK = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    import torch
    from gsfl_tune.cache import locks
    from gsfl_tune.training import Workspace
    from gsfl_tune.training.caches.features import FeatureExtractor
    from tests.training.conftest import tiny_config

    locks.NOTICE_SECONDS = 0.2
    torch.set_num_threads(1)
    stopping = False
    maps = FeatureExtractor._maps

    def counted(self, *arguments, **options):
        print("computing", flush=True)
        for batch in maps(self, *arguments, **options):
            yield batch
            if stopping:
                print("half", flush=True)
                sys.stdin.read()

    FeatureExtractor._maps = counted
    config = tiny_config(data={"views": 1})
    workspace = Workspace.open(config.data, cache_dir=Path(sys.argv[1]), device=torch.device("cpu"))
    print("ready", flush=True)
    for line in sys.stdin:
        stopping = line == "view, stopping\\n"
        if line == "features\\n":
            print(workspace.features(config).double().sum().item(), flush=True)
        else:
            print(workspace.view_features(config)[0].double().sum().item(), flush=True)
    """
)


@pytest.mark.slow
def test_one_process_computes_while_others_wait_and_a_killed_one_is_followed(tmp_path):
    asking = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]

    def tell(process, line):
        process.stdin.write(f"{line}\n")
        process.stdin.flush()

    def hear(process):
        return process.stdout.readline().strip()

    try:
        assert [hear(process) for process in asking] == ["ready", "ready"]
        for process in asking:
            tell(process, "features")
        heard = [hear(process) for process in asking]
        assert heard.count("computing") == 1
        computing = heard.index("computing")
        value = hear(asking[computing])
        assert heard[1 - computing] == value

        builder, waiter = asking
        tell(builder, "view, stopping")
        assert [hear(builder), hear(builder)] == ["computing", "half"]
        tell(waiter, "view")
        expected = "features (test_efficientnet, none, 32 px, typefaces, view 0)"
        # It may have waited for other things before.
        while waiter.stderr.readline() != f"waiting for another process that builds {expected}\n":
            assert waiter.poll() is None
        assert len(list((tmp_path / "features").glob("*.tmp"))) == 1
        builder.kill()
        assert hear(waiter) == "computing"
        computed = float(hear(waiter))
    finally:
        for process in asking:
            process.kill()
            process.communicate(timeout=60)
    assert not list((tmp_path / "features").glob("*.tmp"))
    config = tiny_config(data={"views": 1})
    workspace = Workspace.open(config.data, cache_dir=tmp_path, device=CPU)
    (view,) = workspace.view_features(config)
    assert len(view) == len(workspace.dataset.pool)
    assert view.double().sum().item() == pytest.approx(computed)
