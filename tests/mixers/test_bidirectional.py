from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from seqloom.core.component import Value
from seqloom.core.counting import count_macs
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.recurrent.gru import GRU
from seqloom.mixers.recurrent.lstm import LSTM
from seqloom.mixers.recurrent.mlstm import MLSTM
from seqloom.mixers.ssm.rg_lru import RGLRU
from seqloom.mixers.ssm.s4d import S4D
from seqloom.mixers.wrappers.bidirectional import Bidirectional
from seqloom.models.backbone import Backbone
from seqloom.testing.mixers import check_mixer

WITHIN = [GRU.Config(), S4D.Config(state=4), RGLRU.Config(heads=2), MLSTM.Config(), Attention.Config(heads=2, window=3)]
BOUND = {"rtol": 1e-9, "atol": 1e-9}


def build(mixer, **options):
    torch.manual_seed(1)
    return Bidirectional(8, Bidirectional.Config(mixer=mixer, **options)).double()


def inputs(rows, length):
    return torch.randn(rows, length, 8, generator=torch.Generator().manual_seed(2)).double()


def by_hand(mixer, x_1TD):
    """Both directions of one unpadded row, from the parts of the wrapper."""
    second = mixer.mixer if mixer.backwards is None else mixer.backwards
    forwards_1TD, backwards_1TD = mixer.mixer(x_1TD)[0], second(x_1TD.flip(1))[0].flip(1)
    if mixer.config.mode == "backward":
        return backwards_1TD
    if mixer.output is None:
        return forwards_1TD + backwards_1TD
    return torch.cat([forwards_1TD, backwards_1TD], -1) @ mixer.output.weight.T + mixer.output.bias


@pytest.mark.parametrize("options", [{}, {"shared": False}, {"mode": "concat"}, {"mode": "backward"}], ids=str)
@pytest.mark.parametrize("within", WITHIN, ids=lambda config: config.owner.__name__)
def test_equals_both_directions_by_hand_whatever_the_rows_look_like(within, options):
    """Each row alone and without padding, against padded on either side, and packed with others."""
    mixer, x_BTD, lengths = build(within, **options), inputs(4, 9), (9, 5, 1, 0)
    lengths_B = torch.tensor(lengths)
    right_BTD = mixer(x_BTD, layout=Layout(lengths_B=lengths_B))[0]
    left_BTD = mixer(
        torch.stack([row.roll(9 - length, 0) for row, length in zip(x_BTD, lengths, strict=True)]),
        layout=Layout(lengths_B=lengths_B, side="left"),
    )[0]
    packed_1TD = torch.cat([x_BTD[row : row + 1, :length] for row, length in enumerate(lengths)], 1)
    starts_BT = torch.zeros(1, 15, dtype=torch.bool)
    starts_BT[0, [0, 9, 14]] = True
    packed_1TD, at = mixer(packed_1TD, layout=Layout(starts_BT=starts_BT))[0], 0
    for row, length in enumerate(lengths):
        if length:
            want_1TD = by_hand(mixer, x_BTD[row : row + 1, :length])
            assert_close(right_BTD[row : row + 1, :length], want_1TD, **BOUND)
            assert_close(left_BTD[row : row + 1, 9 - length :], want_1TD, **BOUND)
            assert_close(packed_1TD[:, at : at + length], want_1TD, **BOUND)
        assert float(right_BTD[row, length:].detach().abs().sum()) == 0
        at += length


def test_two_directions_of_lstms_are_torchs_bidirectional_lstm():
    """Weights of their own, concatenated by an identity: what torch.nn.LSTM gives."""
    mixer, x_BTD = build(LSTM.Config(), mode="concat", shared=False), inputs(3, 7)
    theirs = torch.nn.LSTM(8, 8, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for ours, end in ((mixer.mixer, ""), (mixer.backwards, "_reverse")):
            getattr(theirs, f"weight_ih_l0{end}").copy_(ours.input_weight)
            getattr(theirs, f"weight_hh_l0{end}").copy_(ours.state_weight)
            getattr(theirs, f"bias_ih_l0{end}").copy_(ours.bias)
            getattr(theirs, f"bias_hh_l0{end}").zero_()
        assert_close(mixer(x_BTD)[0], mixer.output(theirs(x_BTD)[0]), **BOUND)


@pytest.mark.parametrize("mode", ["add", "concat", "backward"])
def test_what_a_position_sees(mode):
    mixer, x_BTD = build(GRU.Config(), mode=mode), inputs(1, 9).requires_grad_()
    (slope_BTD,) = torch.autograd.grad(mixer(x_BTD)[0][0, 4].square().sum(), x_BTD)
    seen_T = slope_BTD[0].abs().amax(1) > 0
    assert seen_T.tolist() == [mode != "backward"] * 4 + [True] * 5


def test_written_positions_are_mirrored():
    """Rotary attention read from the end turns by distances from the end, wherever a row's positions begin."""
    mixer, x_BTD = build(Attention.Config(heads=2)), inputs(2, 7)
    lengths_B = torch.tensor([7, 4])
    want_BTD = mixer(x_BTD, layout=Layout(lengths_B=lengths_B))[0]
    for first in (0, 30):
        layout = Layout(lengths_B=lengths_B, positions_BT=torch.arange(7).expand(2, -1) + first)
        assert_close(mixer(x_BTD, layout=layout)[0], want_BTD, **BOUND)


def test_shared_weights_are_counted_once_and_others_twice():
    counts = {}
    for shared in (True, False):
        mixer = build(S4D.Config(), shared=shared)
        counts[shared] = sum(value.numel() for value in mixer.parameters())
        names = [name for group in mixer.param_groups() for name in group.names]
        assert names
        assert set(names) <= set(dict(mixer.named_parameters()))
        assert len(names) == len(S4D(8).param_groups()[0].names) * (1 if shared else 2)
    assert counts[False] == 2 * counts[True]


def test_a_stack_of_alternating_directions_sees_everything():
    """The first layer reads forwards, the second one backwards: together they see the whole row, and are cheap."""
    config = Backbone.Config(width=8, layers=2, mixers=(GRU.Config(), Bidirectional.Config(mode="backward")))
    backbone, x_BTD = config.build().double(), inputs(1, 6).requires_grad_()
    assert not backbone.causal
    (slope_BTD,) = torch.autograd.grad(backbone(x_BTD)[0][-1][0, 3].square().sum(), x_BTD)
    assert bool((slope_BTD[0].abs().amax(1) > 0).all())


def test_the_mixer_inside_travels_in_json():
    config = Bidirectional.Config(mixer=S4D.Config(state=6), mode="concat", shared=False)
    assert Value.from_json(config.to_json()) == config
    assert config.to_json()["mixer"]["part"] == "mixers/s4d"


@pytest.mark.parametrize("within", [S4D.Config(state=4), RGLRU.Config(heads=2)], ids=str)
def test_another_mixer_inside_keeps_the_contract(within):
    checks = ["lengths", "padding", "packing", "positions", "batch", "refusals", "declaration", "bfloat16"]
    for options in ({}, {"shared": False, "mode": "concat"}):
        check_mixer(Bidirectional.Config(mixer=within, **options), checks=checks)


@pytest.mark.parametrize("mode", ["add", "concat", "backward"])
def test_operations_are_those_of_the_directions(mode):
    """Both in one call, and a filter's kernels with them, which are made once: there the figure is the most."""
    for config in (RGLRU.Config(heads=2), MLSTM.Config()):
        check_mixer(Bidirectional.Config(mixer=config, mode=mode), checks=["flops"])
    mixer = Bidirectional(8, Bidirectional.Config(mixer=S4D.Config(state=4), mode=mode))
    assert count_macs(lambda x: mixer(x)[0], torch.randn(1, 13, 8)).flops <= mixer.flops(13)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        (Bidirectional.Config(mixer=Attention.Config(causal=False)), "Attention sees what follows already"),
        (Bidirectional.Config(mixer=Bidirectional.Config()), "Bidirectional sees what follows already"),
        (replace(Bidirectional.Config(), mode="alternate"), "alternate"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(config, word):
    with pytest.raises(ConfigError, match=word):
        config.build(8)
