"""The smallest model of every timm family through probe, pooling, cut, a step, bundle, export."""

import sys
from pathlib import Path

import pytest
import timm

from gsfl_tune.models import BackboneError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def families():
    """The sweep, which also prints the table of benchmarks/results/families.md."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import families
    finally:
        sys.path.remove(str(BENCHMARKS))
    return families


# Models that give no feature map; families whose blocks do not simply follow each other; and those
# with an operation that torch's ONNX exporter does not know.
NO_MAP = {"coat", "crossvit", "efficientvim", "pit"}
NO_CUT = {
    *("beit", "cait", "convit", "deepseek_vit", "eva", "gemma4_vit", "hrnet", "levit", "mvitv2"),
    *("naflexvit", "nasnet", "pnasnet", "qwen3_vit", "selecsls", "tnt", "twins", "visformer"),
    *("volo", "xcit", "vit_srelpos_small_patch16_224", "samvit_base_patch16"),
}
NO_ONNX = {"gemma4_vit", "hiera", "nest", "twins", "vision_transformer_sam"}


def check(row):
    if row.family in NO_MAP:
        assert "no feature map" in row.step
        return
    assert row.step == "ok"
    assert row.blocks > 1
    assert 0.5 / row.blocks <= row.share <= 0.97
    assert row.moved > 0.9


@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param("vision_transformer", "test_vit", marks=pytest.mark.slow),
        ("efficientnet", "test_efficientnet"),
        ("pit", "pit_ti_224"),
    ],
)
def test_some_go_all_the_way(families, family, name):
    pytest.importorskip("onnxruntime")
    row = families.sweep(family, name)
    check(row)
    if family not in NO_MAP:
        assert (row.cut, row.export) == ("ok", "ok")
    assert "| ---" in families.report([row]).replace("|--", "| --")


def test_the_table_says_how_much_of_the_last_block_a_step_moved(families):
    row = families.Row("a", "a_tiny", 10**6, 32, 4, 0.25, 0.964, "ok", "ok", "ok")
    none = families.Row("b", "b_tiny", step="no feature map")
    header, _, *lines = families.report([row, none]).splitlines()[:4]
    cells = [[cell.strip() for cell in line.split("|")] for line in (header, *lines)]
    assert {len(each) for each in cells} == {len(cells[0])}
    place = cells[0].index("moved")
    assert [each[place] for each in cells[1:]] == ["96.4 %", "-"]
    assert cells[2][cells[0].index("step")] == "no feature map"


# Its head cannot leave out a classifier.
NO_HEAD = {"mobilenetv5_300m_enc"}


@pytest.mark.slow
@pytest.mark.parametrize("family", timm.list_modules())
def test_the_head_of_every_family_is_that_of_timm(families, family):
    for name in families.models(family):
        try:
            side = families.smallest_side(name)
        except BackboneError:
            assert family in NO_MAP
            continue
        found = families.native(name, side)
        assert (found == "ok") == (name not in NO_HEAD), found


@pytest.mark.slow
@pytest.mark.parametrize("family", timm.list_modules())
def test_every_family_goes_all_the_way(families, family):
    pytest.importorskip("onnxruntime")
    for name in families.models(family):
        row = families.sweep(family, name)
        check(row)
        if family not in NO_MAP:
            assert (row.cut == "ok") == NO_CUT.isdisjoint({family, name}), row.cut
            assert (row.export == "ok") == (family not in NO_ONNX), row.export
