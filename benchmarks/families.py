"""The smallest model of every timm family through all that a search does with a backbone.

Random weights, one thread, the smallest images that the model can see with a map of 2 x 2 positions
or more: probe, the poolings of maps, the cut in front of the last block, one step that trains this
block and the head, a bundle, and an ONNX file whose outputs are compared with PyTorch's on batches
of one and three (a program of torch.export where ONNX does not know an operation). Besides them
some models that are built otherwise than the smallest of their family. It needs about 8 GB of
memory.

    python benchmarks/families.py                      # about two hours on one core
    python benchmarks/families.py --only pit rdnet     # some families; writes no results
    python benchmarks/families.py --rows FILE          # goes on with the rows in FILE
    python benchmarks/families.py --no-export          # ten times as fast; writes no results
    python benchmarks/families.py --quick              # a smoke run: two families
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch
from _report import publish, table
from torch.nn import functional as F

from gsfl_tune.bundles import files
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import bundle_from_network, exported_file, load_bundle, onnx_file
from gsfl_tune.export.graph import Deployed, require_any_batch
from gsfl_tune.export.runtimes import ExportedRuntime, OnnxRuntime, Runtime
from gsfl_tune.models import (
    POOLINGS,
    Backbone,
    BackboneError,
    CannotCut,
    Network,
    PlainHead,
    Projection,
    create_backbone,
    create_pooling,
    map_shape,
    pooling_class,
    probe,
    projection_channels,
)

SIDES = (32, 48, 64, 96, 112, 128, 160, 192, 224, 240, 256, 288, 320, 384, 448, 512)
# Built otherwise than the smallest model of their family.
OTHERS = {
    "mobilenetv5": ["mobilenetv5_300m_enc"],
    "pit": ["pit_ti_distilled_224"],
    "vision_transformer_relpos": ["vit_srelpos_small_patch16_224"],
    "vision_transformer_sam": ["samvit_base_patch16"],
}
QUICK = ["metaformer", "pit"]
CLASSES = ["ant", "bee", "cat"]
# Largest deviation of an exported file's logits, relative to the largest logit.
TOLERANCE = 1e-3


@dataclass
class Row:
    """What became of one model; texts are ``ok`` or the reason why not.

    Attributes:
        family: Module of timm.
        model: Its name.
        parameters: That the map depends on.
        size: Side of the images in pixels.
        blocks: Number of blocks.
        share: Of the parameters that are in the last block.
        moved: Share of the last block's parameters that one step changes.
        cut: In front of the last block.
        step: One training step.
        export: To ONNX, or else to torch-export.
        seconds: That all of it took.
    """

    family: str
    model: str
    parameters: int = 0
    size: int = 0
    blocks: int = 0
    share: float = 0.0
    moved: float = 0.0
    cut: str = "-"
    step: str = "-"
    export: str = "-"
    seconds: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="FAMILY", help="some families")
    parser.add_argument("--rows", type=Path, help="keep rows here, and take those that there are")
    parser.add_argument("--no-export", action="store_true", help="leave out the longest part")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    families = QUICK if args.quick else args.only or timm.list_modules()
    rows = []
    if args.rows and args.rows.is_file():
        rows = [Row(**json.loads(line)) for line in args.rows.read_text().splitlines()]
    done = {row.model for row in rows}
    for family in families:
        for name in models(family):
            if name in done:
                continue
            try:
                rows.append(sweep(family, name, export=not args.no_export))
            except Exception as error:  # a fault of ours: the table shows it, the test fails
                reason = str(error).strip().splitlines()
                words = f"failed: {type(error).__name__} {reason[0] if reason else ''}"
                rows.append(Row(family, name, step=words))
            print("  ".join(cells(rows[-1])), flush=True)
            if args.rows:
                with args.rows.open("a") as file:
                    file.write(json.dumps(asdict(rows[-1])) + "\n")
    save = not (args.quick or args.only or args.no_export)
    publish("families", "A model of every timm family", report(rows), save=save)


def models(family: str) -> list[str]:
    """The models of a family that are tried: the one with the fewest parameters, and others."""
    sizes = {}
    for name in timm.list_models(module=family):
        for device in ("meta", "cpu"):
            try:
                with torch.device(device), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    model = timm.create_model(name, pretrained=False, num_classes=0)
            except Exception:  # some compute with numbers when they are built
                continue
            sizes[name] = sum(parameter.numel() for parameter in model.parameters())
            break
    smallest = min(sizes, key=lambda name: (sizes[name], name))
    return [smallest, *OTHERS.get(family, [])]


def sweep(family: str, name: str, *, export: bool = True) -> Row:
    """Takes one model all the way.

    Args:
        family: Module of timm.
        name: Of the model.
        export: Whether to write and run a file, which takes longest.

    Raises:
        AssertionError: If something is silently wrong: a loss or a weight that is not finite, a
            frozen weight that a step changes, a bundle that gives other logits.
    """
    started = time.monotonic()
    row = Row(family, name)
    try:
        facts = probe(name)
        row.size = smallest_side(name)
    except BackboneError as error:
        row.step = str(error)
        return row
    row.parameters, row.blocks = facts.parameters, facts.blocks
    network = _network(name)
    last = network.backbone.train_last(1)
    row.share = sum(parameter.numel() for parameter in last) / facts.parameters
    _require_poolings(network.backbone, row.size)
    try:
        network.backbone.split(row.size)
        row.cut = "ok"
    except CannotCut as error:
        row.cut = str(error)
    row.moved = _step(network, row.size)
    row.step = "ok"
    network.eval().requires_grad_(False)
    with tempfile.TemporaryDirectory() as folder:
        module = _bundle(network, row.size, Path(folder))
        if export:
            row.export = _export(module, row.size, Path(folder))
    del network
    gc.collect()
    row.seconds = time.monotonic() - started
    return row


def smallest_side(name: str) -> int:
    """The smallest side of an image of which a model gives a map of more than one position.

    Raises:
        BackboneError: If the model cannot even see images of the size that it was made for.
    """
    made_for = probe(name).input_size
    for side in (*(side for side in SIDES if side < made_for), made_for):
        try:
            _, height, width = map_shape(name, side)
        except BackboneError:
            if side == made_for:
                raise
            continue
        if min(height, width) > 1:
            return side
    return made_for


def _network(name: str) -> Network:
    generator = torch.Generator().manual_seed(0)
    backbone = create_backbone(name, "none")
    channels = projection_channels("compact_bilinear", 64, backbone.channels)
    projection = None
    if channels:
        weight = torch.randn(channels, backbone.channels, generator=generator)
        projection = Projection(weight / backbone.channels**0.5, torch.zeros(backbone.channels))
    pooling = create_pooling("compact_bilinear", channels or backbone.channels, dim=256)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        head = PlainHead(pooling.dim, len(CLASSES), latent_dim=16, dropout=0.0, feature_scale=8.0)
        for parameter in backbone.parameters():
            if not parameter.any():  # a zero in front of a branch leaves it without a gradient
                parameter.normal_(std=0.1)
    return Network(backbone, projection, pooling, head)


def _require_poolings(backbone: Backbone, size: int) -> None:
    with torch.no_grad():
        maps = backbone(_images(2, size))
    assert maps.shape == (2, *map_shape(backbone.name, size))
    for name in POOLINGS:
        if pooling_class(name).reads != "map":
            continue
        kept = projection_channels(name, 32, backbone.channels)
        pooling = create_pooling(name, kept or backbone.channels, dim=64)
        pooled = pooling(maps[:, :kept])
        assert pooled.shape == (2, pooling.dim), name
        assert pooled.isfinite().all(), name


def native(name: str, size: int) -> str:
    """Compares the vector that a model's own head makes with timm's; ``ok`` or why there is none.

    Raises:
        AssertionError: If it deviates by more than 1e-5 of its largest number.
    """
    try:
        backbone = create_backbone(name, "none", reads="head")
    except BackboneError as error:
        return str(error)
    images = _images(2, size)
    with torch.no_grad():
        found = create_pooling("native", backbone.channels)(backbone(images))
        features = backbone.model.forward_features(images)
        expected = backbone.model.forward_head(features, pre_logits=True)
    assert found.shape == expected.shape == (2, backbone.channels)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    return "ok"


def _step(network: Network, size: int) -> float:
    """Trains the last block and the head once; the share of this block that it changed."""
    network.train()
    before = {key: _sum(p) for key, p in network.backbone.named_parameters()}
    trained = [p for p in network.backbone.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW([*trained, *network.head.parameters()], lr=1e-3)
    loss = F.cross_entropy(network(_images(3, size)).logits, torch.arange(3))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
    moved = sum(p.numel() for p in trained if p.grad is not None and p.grad.any())
    optimizer.step()
    for key, parameter in network.backbone.named_parameters():
        assert parameter.requires_grad or _sum(parameter) == before[key], key
    optimizer.zero_grad()
    return moved / sum(p.numel() for p in trained)


def _sum(parameter: torch.Tensor) -> float:
    return float(parameter.detach().double().sum())


def _bundle(network: Network, size: int, folder: Path) -> Deployed:
    """Writes and reads a bundle; what would be exported of it."""
    model = {"backbone": network.backbone.name, "weights": "none", "head": "plain"}
    model |= {"pooling": "compact_bilinear", "pooling_dim": 256, "latent_dim": 16}
    model |= {"pooling_channels": network.pooling.channels, "feature_scale": 8.0}
    data = {"source": "typefaces", "image_size": size}
    config = Config.model_validate({"name": "sweep", "data": data, "model": model})
    path = bundle_from_network(
        folder / "bundle", network, config, classes=CLASSES, groups=None, side=size, metrics={}
    )
    bundle = load_bundle(path, device="cpu")
    images = _images(3, size)
    with torch.no_grad():
        expected = network.infer(images)
        assert expected.std(dim=0).min() > 0, "images are not told apart"
        torch.testing.assert_close(bundle.network.infer(images), expected, rtol=1e-4, atol=1e-5)
    return Deployed(network, bundle.preprocessing, inside=False)


def _export(module: Deployed, size: int, folder: Path) -> str:
    images = _images(3, size)
    with torch.inference_mode():
        expected = module(images)
    reasons = []
    for name in ("onnx", "torch-export"):
        file = folder / files.MODELS[name]
        try:
            runtime = _write(name, module, file)
            require_any_batch(name, runtime.run, module)
        except UserError as error:
            said = str(error).removeprefix(f"--format {name}: ").partition("; allowed")[0]
            reasons.append(said.replace(f"{folder}/", ""))
            continue
        with torch.inference_mode():
            found = runtime.run(images)
        deviation = float((found - expected).abs().max() / expected.abs().max())
        if deviation <= TOLERANCE:
            return "ok" if name == "onnx" else f"torch-export; onnx: {reasons[0]}"
        reasons.append(f"outputs deviate by {deviation:.1e}")
    return "; ".join(reasons)


def _write(name: str, module: Deployed, file: Path) -> Runtime:
    if name == "onnx":
        onnx_file.write_onnx(module, file)
        return OnnxRuntime(file, module.preprocessing, inside=False)
    program = exported_file.capture(module, module.example())
    exported_file.write_program(program, file, {})
    return ExportedRuntime(file, module.preprocessing, inside=False)


def _images(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))


def cells(row: Row) -> Iterator[str]:
    """One line of the table."""
    yield row.family
    yield row.model
    if not row.blocks:
        yield from ("-", "-", "-", "-", "-", "-", row.step, "-")
        return
    yield f"{row.parameters / 1e6:.1f} M"
    yield f"{row.size} px"
    yield str(row.blocks)
    yield f"{100 * row.share:.1f} %"
    yield f"{100 * row.moved:.1f} %"
    yield from (row.cut, row.step, row.export)


def report(rows: list[Row]) -> str:
    """The table as Markdown."""
    header = ("family", "model", "parameters", "images", "blocks", "last block", "moved")
    lines = [list(cells(row)) for row in sorted(rows, key=lambda row: (row.family, row.model))]
    usable = [row for row in rows if row.blocks]
    cut = sum(row.cut == "ok" for row in usable)
    onnx = sum(row.export == "ok" for row in usable)
    return (
        f"{table((*header, 'cut', 'step', 'export'), lines)}\n\n"
        f"{len(rows)} models of {len({row.family for row in rows})} families; {len(usable)} give a "
        f"feature map. Of these {cut} can be cut in front of their last block (the others run as a "
        f"whole), and {onnx} can be written as ONNX. Parameters: those that the map depends on; "
        "last block: its share of them; moved: the share of that block that one training step "
        "changes, which must change no other parameter of the backbone (else the row says failed); "
        "images: the smallest that the model can see with a map of 2 x 2 positions or more."
    )


if __name__ == "__main__":
    main()
