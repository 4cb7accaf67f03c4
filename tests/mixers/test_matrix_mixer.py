import math

import pytest
import torch
from torch.nn.functional import conv1d, silu
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.ssm.matrix_mixer import MatrixMixer

KINDS = ["toeplitz", "vandermonde", "cauchy", "low_rank", "attention"]
FORMS = [(kind, dependent) for kind in KINDS for dependent in (True, False)] + [("dense", False)]


def build(kind, dependent, **options):
    torch.manual_seed(1)
    config = {"kind": kind, "dependent": dependent, "head_width": 8, "state": 3, "conv": 3, "length": 20}
    mixer = MatrixMixer(8, MatrixMixer.Config(**config | options)).double()
    with torch.no_grad():
        for name in ("skip", "norm.weight", "conv.bias", *(("offset",) if kind == "cauchy" else ())):
            mixer.get_parameter(name).normal_()
    return mixer


def entry(kind, q_N, k_N, i, j, sizes):
    """One number of the matrix, as it is defined."""
    (T, N), offset = sizes[:2], sizes[2]
    if kind == "toeplitz":
        raise AssertionError("read by the distance, not by the pair")
    if kind == "vandermonde":
        w = 2e-3 * math.pi
        terms = [math.cos(w * j * float(q_N[n])) - math.cos(w * i * float(k_N[n])) for n in range(N)]
        return sum(terms) / math.sqrt(2 * T * N)
    if kind == "cauchy":
        terms = [1 / (math.exp(float(q_N[n])) + math.exp(float(k_N[n])) + math.exp(offset)) for n in range(N)]
        return sum(terms) / math.sqrt(T * N)
    return float(q_N @ k_N) / math.sqrt(N) / (math.sqrt(T) if kind == "low_rank" else 1)


def matrix(mixer, u_TI):
    """Head by head, entry by entry."""
    options, T = mixer.config, len(u_TI)
    if options.kind == "dense":
        return mixer.matrix[:, :T, :T] / math.sqrt(T)
    if options.dependent:
        q_THN, k_THN = u_TI[:, mixer.inner :].unflatten(-1, (2, mixer.heads, -1)).unbind(1)
    else:
        q_THN, k_THN = mixer.places[:, :T]
    M = torch.zeros(mixer.heads, T, T).double()
    for h in range(mixer.heads):
        offset = float(mixer.offset[h]) if options.kind == "cauchy" else 0.0
        for i in range(T):
            for j in range(T):
                if options.kind == "toeplitz":
                    M[h, i, j] = (q_THN[i - j, h, 0] if j <= i else k_THN[j - i, h, 0]) / math.sqrt(T)
                else:
                    M[h, i, j] = entry(options.kind, q_THN[i, h], k_THN[j, h], i, j, (T, mixer.numbers, offset))
    return M.softmax(-1) if options.kind == "attention" else M


def by_equations(mixer, x_TD):
    into_TI = x_TD @ mixer.into.weight.T
    z_TE, u_TI = into_TI[:, : mixer.inner], into_TI[:, mixer.inner :]
    taps = mixer.conv.weight[:, None]
    u_TI = silu(conv1d(u_TI.T[None], taps, mixer.conv.bias, padding=taps.shape[-1] // 2, groups=len(taps))[0].T)
    x_HTP = u_TI[:, : mixer.inner].unflatten(-1, (mixer.heads, -1)).transpose(0, 1)
    y_HTP = matrix(mixer, u_TI) @ x_HTP + mixer.skip[:, None, None] * x_HTP
    y_TE = y_HTP.transpose(0, 1).flatten(1)
    y_TE = y_TE / (y_TE.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.norm.weight
    return (y_TE * silu(z_TE)) @ mixer.output.weight.T


@pytest.mark.parametrize(("kind", "dependent"), FORMS)
def test_equals_the_matrix_written_out_entry_by_entry(kind, dependent):
    mixer, x_BTD = build(kind, dependent), torch.randn(2, 6, 8).double()
    with torch.no_grad():
        want_BTD = torch.stack([by_equations(mixer, x_TD) for x_TD in x_BTD])
        assert_close(mixer(x_BTD)[0], want_BTD, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "dependent"), FORMS)
def test_a_padded_row_is_that_row_alone(kind, dependent):
    mixer, x_BTD = build(kind, dependent), torch.randn(2, 9, 8).double()
    x_BTD[0, 5:] = torch.nan
    y_BTD, _ = mixer(x_BTD, layout=Layout(lengths_B=torch.tensor([5, 9])))
    assert_close(y_BTD[:1, :5], mixer(x_BTD[:1, :5])[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", ["toeplitz", "low_rank", "attention"])
def test_what_is_made_of_tokens_serves_any_length_and_what_is_by_place_ends(kind):
    assert build(kind, True)(torch.randn(1, 30, 8).double())[0].shape == (1, 30, 8)
    with pytest.raises(ConfigError, match="20"):
        build(kind, False)(torch.randn(1, 30, 8).double())


def test_extreme_exponents_stay_finite():
    mixer = build("cauchy", False)
    with torch.no_grad():
        mixer.places.mul_(1e4)
    y_BTD, _ = mixer(torch.randn(1, 6, 8).double().requires_grad_())
    grads = torch.autograd.grad(y_BTD.sum(), list(mixer.parameters()), allow_unused=True)
    assert all(value.isfinite().all() for value in (y_BTD, *grads) if value is not None)


@pytest.mark.parametrize(
    "options", [{"kind": "fourier"}, {"kind": "dense", "dependent": True}, {"state": 0}, {"conv": 2}], ids=str
)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError):
        MatrixMixer(8, MatrixMixer.Config(**options))
