from dataclasses import replace

import pytest
import torch
from torch.nn.functional import group_norm, silu
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.layers.rotary import Rotary
from seqloom.mixers.attention import _decayed
from seqloom.mixers.attention.retention import Retention


def build(width=12, dtype=torch.float64, **options):
    torch.manual_seed(1)
    mixer = Retention(width, Retention.Config(**{"heads": 3} | options)).to(dtype)
    for value in mixer.norm.parameters():
        torch.nn.init.normal_(value)
    return mixer


def by_steps(mixer, x_BTD):
    state, pieces = mixer.initial_state(len(x_BTD)), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1), state


def parts(mixer, x_BTD):
    """Queries, keys and values (B, H, T, K), the first two as complex pairs of channels that turn with the position."""
    H, D = mixer.config.heads, mixer.width
    split = (x_BTD @ mixer.qkv.weight.T).split([D, D, mixer.values], -1)
    q, k, v = (x.unflatten(-1, (H, -1)).transpose(1, 2) for x in split)
    i_P = torch.arange(0, q.shape[-1], 2, dtype=q.dtype)
    angle_TP = torch.arange(x_BTD.shape[1], dtype=q.dtype)[:, None] * 10000.0 ** (-i_P / q.shape[-1])
    turn_TP = torch.polar(torch.ones_like(angle_TP), angle_TP)
    q, k = (torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * turn_TP for x in (q, k))
    return q, k, v


def finish(mixer, o_BHTV, x_BTD):
    """The group norm of torch over each head's channels, then gate and map."""
    H, rows = mixer.config.heads, o_BHTV.transpose(1, 2).flatten(2).flatten(0, 1)
    gain, bias = (None if value is None else value.repeat(H) for value in (mixer.norm.weight, mixer.norm.bias))
    o_BTV = group_norm(rows, H, gain, bias, mixer.config.eps).unflatten(0, x_BTD.shape[:2])
    return (o_BTV * silu(x_BTD @ mixer.gate.weight.T)) @ mixer.out.weight.T


def scores(mixer, x_BTD, normalised=False):
    """The paper's parallel form: Q K^T times the matrix of decays; and its three normalisations on demand."""
    q, k, v = parts(mixer, x_BTD)
    T, h_H = x_BTD.shape[1], torch.arange(mixer.config.heads, dtype=x_BTD.dtype)
    lag_TS = torch.arange(T)[:, None] - torch.arange(T)
    decay_HTS = torch.where(lag_TS >= 0, (1 - 2 ** (-5 - h_H))[:, None, None] ** lag_TS.clamp_min(0), 0.0)
    score_BHTS = (q @ k.mH).real / mixer.head_width**0.5
    if not normalised:
        return (score_BHTS * decay_HTS) @ v
    score_BHTS = score_BHTS * decay_HTS / decay_HTS.sum(-1, keepdim=True).sqrt()
    return score_BHTS / score_BHTS.sum(-1, keepdim=True).abs().clamp_min(1) @ v


def test_equals_the_parallel_form():
    mixer, x_BTD = build(), torch.randn(2, 17, 12).double()
    with torch.no_grad():
        want_BTD = finish(mixer, scores(mixer, x_BTD), x_BTD)
        assert_close(mixer(x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)
        assert_close(by_steps(mixer, x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)


def test_the_papers_normalisation_of_scores_changes_nothing_behind_the_norm():
    """But for eps, which therefore is tiny here."""
    mixer, x_BTD = build(eps=1e-15), torch.randn(2, 17, 12).double()
    with torch.no_grad():
        plain, normalised = scores(mixer, x_BTD), scores(mixer, x_BTD, normalised=True)
        assert float((plain - normalised).abs().max()) > 0.1 * float(plain.abs().max())
        assert_close(mixer(x_BTD)[0], finish(mixer, normalised, x_BTD), rtol=1e-8, atol=1e-8)


@pytest.mark.parity
def test_equals_the_naive_form_of_fla():
    naive = pytest.importorskip("fla.ops.retention.naive")
    mixer, x_BTD = build(dtype=torch.float32, rotary=None), torch.randn(2, 17, 12)
    with torch.no_grad():
        split = mixer.qkv(x_BTD).split([12, 12, mixer.values], -1)
        o_BHTV = naive.naive_retention(*(x.unflatten(-1, (3, -1)).transpose(1, 2) for x in split))
        assert_close(mixer(x_BTD)[0], finish(mixer, o_BHTV, x_BTD), rtol=1e-4, atol=1e-4)


def test_a_step_calls_no_kernel(monkeypatch):
    mixer, x_BTD = build(), torch.randn(2, 4, 12).double()
    want_BTD, _ = mixer(x_BTD)

    def refuse(*_):
        raise RuntimeError("a kernel was called")

    monkeypatch.setattr(_decayed, "decay_attention", refuse)
    assert_close(by_steps(mixer, x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)


def test_only_distances_matter():
    """The turn is relative: the same inputs further on, from an empty state, come out the same."""
    mixer, x_BTD = build(), torch.randn(1, 9, 12).double()
    late_BT = torch.arange(1000, 1009)[None]
    assert_close(mixer(x_BTD, layout=Layout(positions_BT=late_BT))[0], mixer(x_BTD)[0], rtol=1e-9, atol=1e-9)
    spread_BT = 3 * torch.arange(9)[None]
    assert not torch.allclose(mixer(x_BTD, layout=Layout(positions_BT=spread_BT))[0], mixer(x_BTD)[0], atol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_pads_hold_the_state(side):
    """Also where the rows then go on at different positions."""
    mixer, x_BTD = build(), torch.randn(2, 9, 12).double()
    lengths_B, rest_BTD = torch.tensor([5, 2]), torch.full((2, 9, 12), torch.nan).double()
    padded_BTD = rest_BTD[:, :5].clone()
    for row, length in enumerate(lengths_B.tolist()):
        padded_BTD[row, slice(5 - length, 5) if side == "left" else slice(length)] = x_BTD[row, :length]
    _, state = mixer(padded_BTD, mixer.initial_state(2), layout=Layout(lengths_B=lengths_B, side=side))
    for row, length in enumerate(lengths_B.tolist()):
        y_BTD, _ = mixer(x_BTD[row : row + 1, length:], state.select(torch.tensor([row])))
        assert_close(y_BTD, mixer(x_BTD[row : row + 1])[0][:, length:], rtol=1e-10, atol=1e-10)


def test_a_packed_document_is_that_document_alone():
    mixer, x_BTD = build(), torch.randn(1, 20, 12).double()
    starts_BT = torch.zeros(1, 20, dtype=torch.bool)
    starts_BT[0, [0, 7, 8]] = True
    y_BTD, state = mixer(x_BTD, mixer.initial_state(1), layout=Layout(starts_BT=starts_BT))
    for begin, end in (0, 7), (7, 8), (8, 20):
        alone_BTD, after = mixer(x_BTD[:, begin:end], mixer.initial_state(1))
        assert_close(y_BTD[:, begin:end], alone_BTD, rtol=1e-12, atol=1e-12)
    assert_close(state.s_BHKV, after.s_BHKV)


def test_states_and_decays_are_float32_in_bfloat16():
    """The slowest head, 1 - 2^-12 with eight heads, rounds to 1 in bfloat16."""
    mixer = build(16, torch.float32, heads=8, rotary=None)
    x_BTD = torch.randn(1, 1, 16).expand(1, 1500, 16).contiguous()
    want = mixer(x_BTD, mixer.initial_state(1))[1].s_BHKV
    got = mixer.bfloat16()(x_BTD.bfloat16(), mixer.initial_state(1))[1].s_BHKV
    assert got.dtype == torch.float32
    assert (got - want).norm() / want.norm() < 5e-2  # keys and values have 8 bits each, and nothing averages


@pytest.mark.parametrize(
    "options",
    [
        {"heads": 0},
        {"heads": 5},
        {"value_factor": 0.2},
        {"decay": 0.0},
        {"norm": "batch"},
        {"rotary": Rotary.Config(fraction=0.1)},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options):
    (name,) = options
    with pytest.raises(ConfigError, match=name):
        Retention(12, replace(Retention.Config(heads=3), **options))
