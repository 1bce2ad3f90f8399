"""Taps are known before TensorFlow is imported, and named where one is missing."""

import pytest

from tlx.errors import ConfigError
from tlx.models.backbone import Tap, choose_taps, expansions, tap_table

ENDS = {4: "block_2_add", 8: "block_5_add", 16: "block_12_add", 32: "block_16_project_BN"}
TAPS, FINAL = tap_table(ENDS, "out_relu", expansions(ENDS, "out_relu", "expand_relu"))


def test_taps_are_named_by_stride_finest_first_and_block_ends_before_expansions():
    assert (
        Tap("stride4", 4, "block_2_add"),
        Tap("expanded4", 4, "block_3_expand_relu"),
        Tap("stride8", 8, "block_5_add"),
        Tap("expanded8", 8, "block_6_expand_relu"),
        Tap("stride16", 16, "block_12_add"),
        Tap("expanded16", 16, "block_13_expand_relu"),
        Tap("stride32", 32, "block_16_project_BN"),
        Tap("expanded32", 32, "out_relu"),
    ) == TAPS
    assert Tap("final", 32, "out_relu") == FINAL
    plain, final = tap_table(ENDS)
    assert [tap.layer for tap in plain] == [layer for layer in ENDS.values() for _ in range(2)]
    assert final == Tap("final", 32, "block_16_project_BN")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ((8, 16, 32), ["stride8", "stride16", "stride32"]),
        (("expanded32", 4), ["expanded32", "stride4"]),
        (("final",), ["final"]),
        ((), []),
    ],
)
def test_taps_are_chosen_by_name_or_by_stride(wanted, found):
    assert [tap.name for tap in choose_taps((*TAPS, FINAL), wanted, "heads.mine.taps")] == found


def test_a_form_decides_at_a_stride_and_not_where_a_tap_is_named():
    wide_first = sorted(TAPS, key=lambda tap: (tap.stride, tap.name))
    for form, found in {None: "expanded8", "ends": "stride8", "expanded": "expanded8"}.items():
        assert [tap.name for tap in choose_taps(wide_first, (8, "stride16"), "mine", form)] == [found, "stride16"]
    with pytest.raises(ConfigError, match=r"no tap of the form 'expanded' at stride 8; it has .* at strides none"):
        choose_taps([Tap("stride8", 8, "a"), Tap("block3_wide", 8, "b")], (8,), "mine", "expanded")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (64, r"heads\.mine\.taps: the backbone has no tap at stride 64; it has taps at strides 4, 8"),
        ("expandd16", r"heads\.mine\.taps: the backbone has no tap 'expandd16'; did you mean 'expanded16'"),
    ],
)
def test_a_missing_tap_is_named_with_what_there_is(wanted, message):
    with pytest.raises(ConfigError, match=message):
        choose_taps(TAPS, (8, wanted), "heads.mine.taps")


def test_a_backbone_knows_its_taps_without_tensorflow(output_of):
    code = (
        "import sys, tlx.models.backbones; from tlx.registry import backbones\n"
        "backbone = backbones.entries['efficientnet_b0'].factory(weights=None)\n"
        "print(backbone.final.layer, [tap.layer for tap in backbone.taps if tap.stride == 16])\n"
        "print({'tensorflow', 'keras'} & set(sys.modules))"
    )
    assert output_of(code).splitlines() == [
        "top_activation ['block5c_add', 'block6a_expand_activation']",
        "set()",
    ]
