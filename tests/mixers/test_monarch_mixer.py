"""The Monarch Mixer against its equations in dense matrices, and its learned transforms against numpy's inverses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import conv1d, linear, pad
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.layers.implicit_filter import ImplicitFilter
from seqloom.mixers.conv.monarch_mixer import MonarchMixer

D = 4
SMALL = ImplicitFilter.Config(length=40, features=3, width=8, layers=1, frequency=2.0, shift=0.1)
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def build(**options):
    torch.manual_seed(1)
    config = MonarchMixer.Config(**{"filter": SMALL, **options})
    mixer = MonarchMixer(D, config).double()
    if mixer.transforms is not None:
        torch.nn.init.normal_(mixer.transforms.below, std=0.2)
    return mixer


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64)


def toeplitz(past_DT, future_DT=None):
    """Matrices (D, T, T): lag 0 and the past below the diagonal, the future above it."""
    linalg = pytest.importorskip("scipy.linalg")
    T, matrices = past_DT.shape[1], []
    for d in range(len(past_DT)):
        column = past_DT[d].detach().numpy()
        ahead = np.zeros(T) if future_DT is None else np.concatenate([[0.0], future_DT[d].detach().numpy()[: T - 1]])
        matrices.append(torch.from_numpy(linalg.toeplitz(column, ahead)))
    return torch.stack(matrices)


def triangular(mixer, which, size):
    """The first positions of T as a dense matrix, entry by entry from what lies below the diagonals of its blocks."""
    transforms = mixer.transforms
    I, J = transforms.high, transforms.low
    numbers = iter(transforms.below[which].tolist())
    blocks = [np.eye(edge) for edge, count in ((I, J), (J, I)) for _ in range(count)]
    for block in blocks:
        for row in range(1, len(block)):
            for column in range(row):
                block[row, column] = next(numbers)
    matrix = np.zeros((I * J, I * J))
    for l, k, i, j in np.ndindex(I, J, I, J):
        matrix[l * J + k, i * J + j] = blocks[k][l, i] * blocks[J + i][k, j]
    return matrix[:size, :size]


def convolutions(mixer, T):
    """Every long convolution as matrices (D, T, T), its skip included."""
    for stream, skip_D in enumerate(mixer.skip):
        k_DT = mixer.past[stream](T)
        future_DT = mixer.future[stream](T) if len(mixer.future) else None
        if mixer.transforms is None:
            matrix_DTT = toeplitz(k_DT, future_DT)
        else:
            first, second = triangular(mixer, 0, T), triangular(mixer, 1, T)
            inner = toeplitz(k_DT.detach() @ torch.from_numpy(first).T).numpy()
            matrix_DTT = torch.from_numpy(np.linalg.inv(second) @ inner @ first)
        yield matrix_DTT + skip_D[:, None, None] * torch.eye(T)


def by_matrices(mixer, x_BTD):
    """The equations of the module's docstring."""
    T, K = x_BTD.shape[1], mixer.config.conv
    u_BCT = pad(linear(x_BTD, mixer.into.weight, mixer.into.bias).mT, (K - 1, 0))
    short_BCT = conv1d(u_BCT, mixer.conv_weight[:, None], mixer.conv_bias, groups=3 * D)
    first_BDT, second_BDT, v_BDT = short_BCT.split(D, 1)
    gated_DTT, *rest = convolutions(mixer, T)
    y_BDT = second_BDT * torch.einsum("dts,bds->bdt", gated_DTT, first_BDT * v_BDT)
    for matrix_DTT in rest:
        y_BDT = y_BDT + torch.einsum("dts,bsd->bdt", matrix_DTT, x_BTD)
    return linear(y_BDT.mT, mixer.out.weight, mixer.out.bias)


OPTIONS = [
    {},
    {"residual": False, "conv": 1},
    {"causal": False},
    {"causal": False, "residual": False, "conv": 4},
    {"form": "monarch"},
    {"form": "monarch", "residual": False},
]


@pytest.mark.parametrize("T", [1, 5, 6, 7, 23, 40])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_equals_the_equations_in_dense_matrices(options, T):
    mixer, x_BTD = build(**options), randn(2, T, D)
    assert_close(mixer(x_BTD)[0], by_matrices(mixer, x_BTD), **EXACT)


@pytest.mark.parametrize("T", [45, 130])
def test_rows_longer_than_the_unit_of_time(T):
    mixer, x_BTD = build(), randn(2, T, D)
    assert_close(mixer(x_BTD)[0], by_matrices(mixer, x_BTD), **EXACT)


def test_kernels_over_past_and_future_count_lag_zero_once(monkeypatch):
    """With every tap 1 and no skip, each output is the sum of all inputs, each of them once."""
    mixer = build(causal=False)
    monkeypatch.setattr(ImplicitFilter, "forward", lambda network, length: torch.ones(D, length).double())
    torch.nn.init.zeros_(mixer.skip)
    u_BTD, x_BTD, ones_BTD = randn(2, 9, D), randn(2, 9, D), torch.ones(2, 9, D).double()
    got_BTD = mixer._convolved(u_BTD, ones_BTD, ones_BTD, x_BTD)
    want_B1D = (u_BTD + x_BTD).sum(1, keepdim=True)
    assert_close(got_BTD, want_B1D.expand_as(got_BTD))


def test_a_causal_mixer_has_no_kernel_over_the_future():
    assert not len(build().future)
    assert len(build(causal=False).future) == 2


def test_transforms_begin_as_the_identity():
    learned, plain = build(form="monarch"), build()
    torch.nn.init.zeros_(learned.transforms.below)
    left = learned.load_state_dict(plain.state_dict(), strict=False)
    assert left.missing_keys == ["transforms.below"]
    for T in (1, 7, 40):
        x_BTD = randn(2, T, D)
        assert_close(learned(x_BTD)[0], plain(x_BTD)[0], **EXACT)
    fresh = MonarchMixer(D, MonarchMixer.Config(form="monarch", filter=SMALL))
    assert not fresh.transforms.below.detach().any()


@pytest.mark.parametrize("options", [{}, {"form": "monarch"}], ids=str)
def test_a_row_cut_short_is_the_beginning_of_the_row(options):
    mixer, x_BTD = build(**options), randn(2, 40, D)
    y_BTD = mixer(x_BTD)[0]
    for T in (1, 6, 13, 39):
        assert_close(mixer(x_BTD[:, :T])[0], y_BTD[:, :T], **EXACT)


def test_learned_transforms_change_the_outputs_and_nothing_before():
    """They are a wider class than convolutions: a late input meets another kernel than an early one."""
    mixer = build(form="monarch", residual=False)
    with torch.no_grad():
        mixer.skip.zero_()
    zero_BTD, one_BTD = torch.zeros(1, 40, D).double(), torch.ones(1, 40, D).double()
    echoes = []
    for at in (3, 20):
        u_BTD = zero_BTD.clone()
        u_BTD[:, at] = 1
        y_BTD = mixer._transformed(mixer.transforms, u_BTD, u_BTD, one_BTD)
        assert float(y_BTD[:, :at].detach().abs().max()) < 1e-12  # the rounding of the transform in between
        echoes.append(y_BTD[:, at : at + 15])
    assert float((echoes[0] - echoes[1]).detach().abs().max()) > 1e-2


@pytest.mark.parametrize("which", [0, 1])
def test_transforms_look_at_nothing_later_exactly(which):
    transforms = build(form="monarch").transforms
    x_BTD = randn(1, 40, 2).requires_grad_()
    y_BTD = (transforms.second_inverse if which else transforms.first)(x_BTD)[:, :40]
    for t in (0, 5, 6, 17, 39):
        (slope_BTD,) = torch.autograd.grad(y_BTD[:, t].sum(), x_BTD, retain_graph=True)
        assert not slope_BTD[:, t + 1 :].any()
        assert slope_BTD[:, t].tolist() == [[1.0, 1.0]]


def test_gradients_of_learned_transforms():
    mixer, x_BTD = build(form="monarch", filter=replace(SMALL, length=12)), randn(1, 11, D)
    below = mixer.transforms.below

    def run(values):
        return torch.func.functional_call(mixer, {"transforms.below": values}, (x_BTD,))[0]

    torch.autograd.gradcheck(run, below.detach().clone().requires_grad_(), fast_mode=False)


def test_steps_of_padded_rows_equal_the_equations():
    mixer, x_BTD, lengths_B = build(), randn(3, 20, D), torch.tensor([12, 0, 7])
    with torch.no_grad():
        _, state = mixer(x_BTD[:, :12], mixer.initial_state(3), layout=Layout(lengths_B=lengths_B))
        pieces = []
        for x_B1D in x_BTD[:, 12:].split(1, 1):
            y_B1D, state = mixer(x_B1D, state)
            pieces.append(y_B1D)
    got_BTD = torch.cat(pieces, 1)
    for row, length in enumerate(lengths_B.tolist()):
        line_BTD = torch.cat([x_BTD[row : row + 1, :length], x_BTD[row : row + 1, 12:]], 1)
        assert_close(got_BTD[row : row + 1], by_matrices(mixer, line_BTD)[:, length:], **EXACT)


@pytest.mark.parametrize("options", [{"form": "monarch"}, {"causal": False}], ids=str)
def test_what_cannot_step_says_so(options):
    mixer = build(**options)
    assert mixer.can.step == "none"
    with pytest.raises(ConfigError, match="state"):
        mixer.initial_state(2)


def test_only_learned_transforms_and_positions_end():
    assert build().can.length_bound is None
    assert build(form="monarch").can.length_bound == 40
    assert build(filter=replace(SMALL, positions=True)).can.length_bound == 40
    with pytest.raises(ConfigError, match="40 positions"):
        build(form="monarch")(randn(1, 41, D))


def test_the_networks_have_a_rate_of_their_own():
    (group,) = build(causal=False).param_groups()
    assert {name.split(".")[0] for name in group.names} == {"past", "future"}
    assert (group.lr, group.weight_decay) == (1e-3, 0.0)
    _, slow = build(filter=replace(SMALL, positions=True)).param_groups()
    assert slow.names == ("past.0.positions", "past.1.positions")
    assert slow.lr == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"form": "dense"}, "dense"),
        ({"conv": 0}, "not 0"),
        ({"form": "monarch", "causal": False}, "causal False"),
        ({"form": "monarch", "filter": replace(SMALL, length=1)}, "not 1"),
    ],
)
def test_impossible_options_are_refused(options, word):
    with pytest.raises(ConfigError, match=word):
        build(**options)
