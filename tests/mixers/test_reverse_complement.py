import pytest
import torch
from torch.testing import assert_close

from seqloom.core.component import Value
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout, segments, unfold
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.recurrent.gru import GRU
from seqloom.mixers.recurrent.mlstm import MLSTM
from seqloom.mixers.ssm.s4d import S4D
from seqloom.mixers.wrappers.bidirectional import Bidirectional
from seqloom.mixers.wrappers.reverse_complement import ReverseComplement
from seqloom.testing.mixers import check_mixer

WITHIN = [
    GRU.Config(),
    S4D.Config(state=4),
    MLSTM.Config(expand=4.0),
    Attention.Config(heads=2),
    Bidirectional.Config(mixer=S4D.Config(state=4), mode="concat", shared=False),
]


def build(within, width=8):
    torch.manual_seed(1)
    return ReverseComplement(width, ReverseComplement.Config(mixer=within)).double()


def inputs(rows, length, width=8):
    return torch.randn(rows, length, width, generator=torch.Generator().manual_seed(2)).double()


def rc(x_BTD, lengths, side="right"):
    """Reverse complement of every row's valid columns, pads left alone."""
    y_BTD = x_BTD.clone()
    for row, length in enumerate(lengths):
        at = slice(0, length) if side == "right" else slice(x_BTD.shape[1] - length, None)
        y_BTD[row, at] = x_BTD[row, at].flip(0, 1)
    return y_BTD


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("within", WITHIN, ids=lambda config: config.owner.__name__)
def test_the_other_strand_gives_the_other_strand(within, side):
    mixer, x_BTD, lengths = build(within), inputs(4, 11), (11, 6, 1, 0)
    layout = Layout(lengths_B=torch.tensor(lengths), side=side)
    got_BTD = mixer(rc(x_BTD, lengths, side), layout=layout)[0]
    want_BTD = rc(mixer(x_BTD, layout=layout)[0], lengths, side)
    assert_close(got_BTD, want_BTD, rtol=0, atol=1e-12)
    assert float(want_BTD.detach().abs().max()) > 0.01


@pytest.mark.parametrize("within", WITHIN, ids=lambda config: config.owner.__name__)
def test_without_it_the_strand_matters(within):
    torch.manual_seed(1)
    mixer, x_BTD = within.build(8).double(), inputs(2, 11)
    got_BTD, want_BTD = mixer(x_BTD.flip(1, 2))[0], mixer(x_BTD)[0].flip(1, 2)
    assert float((got_BTD - want_BTD).detach().abs().max()) > 1e-2


def test_packed_sequences_are_turned_each_by_itself():
    mixer, x_BTD = build(GRU.Config()), inputs(1, 12)
    starts_BT = torch.zeros(1, 12, dtype=torch.bool)
    starts_BT[0, [0, 7]] = True
    layout = Layout(starts_BT=starts_BT)
    y_SLD = unfold(mixer(x_BTD, layout=layout)[0], segments(layout, 12))
    turned_BTD = torch.cat([x_BTD[:, :7].flip(1, 2), x_BTD[:, 7:].flip(1, 2)], 1)
    other_SLD = unfold(mixer(turned_BTD, layout=layout)[0], segments(layout, 12))
    assert_close(other_SLD, rc(y_SLD, (7, 5)), rtol=0, atol=1e-12)


def test_equals_one_mixer_run_on_both_strands_by_hand():
    mixer, x_BTD = build(S4D.Config(state=4)), inputs(3, 9)
    first, second = x_BTD[..., :4], x_BTD[..., 4:]
    want_BTD = torch.cat([mixer.mixer(first)[0], mixer.mixer(second.flip(1, 2))[0].flip(1, 2)], -1)
    assert_close(mixer(x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)


def test_a_classifier_of_both_strands_does_not_know_which_was_sequenced():
    """Embeddings of a strand and of its complement read backwards, two layers, the mean over time and strands."""
    torch.manual_seed(0)
    table, first, second = torch.randn(4, 4).double(), build(GRU.Config()), build(MLSTM.Config(expand=4.0))
    complement = torch.tensor([3, 2, 1, 0])  # A C G T

    def score(tokens_BT):
        other_BT = complement[tokens_BT].flip(1)
        x_BTD = torch.cat([table[tokens_BT], table[other_BT].flip(1, 2)], -1)
        x_BTD = x_BTD + first(x_BTD)[0]
        x_BTD = x_BTD + second(x_BTD)[0]
        return (x_BTD[..., :4] + x_BTD[..., 4:].flip(-1)).mean(1)

    tokens_BT = torch.randint(0, 4, (5, 23))
    want_BH, got_BH = score(tokens_BT), score(complement[tokens_BT].flip(1))
    assert_close(got_BH, want_BH, rtol=0, atol=1e-12)
    assert float((score(tokens_BT.flip(1)) - want_BH).detach().abs().max()) > 1e-2


def test_the_mixer_has_half_the_width_and_its_groups_keep_their_names():
    mixer = build(S4D.Config())
    assert mixer.mixer.width == 4
    names = [name for group in mixer.param_groups() for name in group.names]
    assert names == [f"mixer.{name}" for group in S4D(4).param_groups() for name in group.names]
    config = ReverseComplement.Config(mixer=Bidirectional.Config(mixer=S4D.Config(state=6)))
    assert Value.from_json(config.to_json()) == config


def test_another_mixer_inside_keeps_the_contract():
    checks = ["lengths", "padding", "packing", "positions", "batch", "refusals", "declaration", "bfloat16"]
    check_mixer(ReverseComplement.Config(mixer=Bidirectional.Config(mixer=S4D.Config(state=4))), checks=checks)


def test_an_odd_width_is_refused():
    with pytest.raises(ConfigError, match="even, not 7"):
        ReverseComplement(7)
