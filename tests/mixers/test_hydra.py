from dataclasses import replace

import pytest
import torch
from torch.nn.functional import conv1d, pad, silu, softplus
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.ssm.hydra import Hydra, both_ways

SMALL = {"head_width": 4, "state": 3, "groups": 2, "conv": 5}
T, H, G, N = 11, 4, 2, 3


def build(width=8, dtype=torch.float64, **options):
    torch.manual_seed(1)
    mixer = Hydra(width, Hydra.Config(**SMALL | options)).to(dtype)
    with torch.no_grad():
        for name in ("skip", "norm.weight", "conv.bias", "decay_log"):
            mixer.get_parameter(name).normal_()
        mixer.step_bias.uniform_(-2, 1)
    return mixer


def draw(T=T):
    """Queries, keys, step sizes and logarithms of decays of both directions."""
    q_BTFGN, k_BTFGN = torch.randn(2, 1, T, 2, G, N).double()
    step_BTFH = torch.rand(1, T, 2, H).double()
    return q_BTFGN, k_BTFGN, step_BTFH, -step_BTFH * torch.rand(H).double()


def matrix(q_BTFGN, k_BTFGN, log_decay_BTFH, shift=True):
    """The matrices (H, T, T) that are applied, column by column: unit vectors are fed in."""
    T = q_BTFGN.shape[1]
    unit_BTFHP = torch.eye(T).double()[None, :, None, None].expand(1, T, 2, H, T)
    return both_ways(q_BTFGN, k_BTFGN, unit_BTFHP, log_decay_BTFH, None, shift)[0].transpose(0, 1)


def formula(q_TFGN, k_TFGN, log_decay_TFH):
    """Entry by entry: what lies before is read one position earlier, what lies behind one position later."""
    T = len(q_TFGN)
    M_HTT = torch.zeros(H, T, T).double()
    for h in range(H):
        g = h // (H // G)
        for i in range(T):
            for j in range(T):
                if j < i:
                    decay = log_decay_TFH[j + 1 : i, 0, h].sum().exp()
                    M_HTT[h, i, j] = q_TFGN[i - 1, 0, g] @ k_TFGN[j, 0, g] * decay
                if j > i:
                    decay = log_decay_TFH[i + 1 : j, 1, h].sum().exp()
                    M_HTT[h, i, j] = q_TFGN[i + 1, 1, g] @ k_TFGN[j, 1, g] * decay
    return M_HTT


def test_unit_vectors_give_the_quasiseparable_matrix():
    """Equal to its entries' formula; nothing on the diagonal, rank N in every block beside it."""
    q, k, _, log_decay = draw()
    M_HTT = matrix(q, k, log_decay)
    assert_close(M_HTT, formula(q[0], k[0], log_decay[0]), rtol=1e-12, atol=1e-12)
    assert not M_HTT.diagonal(dim1=1, dim2=2).any()
    for M_TT in M_HTT:
        ranks = [int(torch.linalg.matrix_rank(block)) for i in range(1, T) for block in (M_TT[i:, :i], M_TT[:i, i:])]
        assert max(ranks) == N
        assert int(torch.linalg.matrix_rank(M_TT)) > 2 * N  # it is no low-rank matrix


def test_forwards_plus_backwards_is_a_special_case():
    """Bidirectional Mamba-2 that adds = the shifted sums of its neighbours' matrices and one certain diagonal.

    Both directions unshifted hold q_i k_i each on the diagonal. So a free diagonal can take their place, and a
    quasiseparable matrix whose queries have one decay more is the same off it.
    """
    q, k, _, log_decay = draw()
    added_HTT = matrix(q, k, log_decay, shift=False)
    ahead_HTT = torch.zeros(H, T, T).double()
    for h in range(H):
        for i in range(T):
            for j in range(T):
                f, span = (0, slice(j + 1, i + 1)) if j <= i else (1, slice(i, j))
                both = (0, 1) if i == j else (f,)
                decay = log_decay[0, span, f, h].sum().exp()
                ahead_HTT[h, i, j] = sum(q[0, i, d, h // 2] @ k[0, j, d, h // 2] for d in both) * decay
    assert_close(added_HTT, ahead_HTT, rtol=1e-12, atol=1e-12)
    heads = torch.arange(H) // (H // G)
    q, k = q[:, :, :, heads], k[:, :, :, heads]  # a decay more, of each head, needs queries of each head
    q_ahead = torch.cat([q[:, 1:, 0] * log_decay[:, 1:, 0, :, None].exp(), q[:, :1, 0]], 1)  # moved to where it is read
    q_behind = torch.cat([q[:, -1:, 1], q[:, :-1, 1] * log_decay[:, :-1, 1, :, None].exp()], 1)
    diagonal_HT = (q * k).sum((2, 4))[0].T
    shifted_HTT = matrix(torch.stack([q_ahead, q_behind], 2), k, log_decay)
    assert_close(shifted_HTT + torch.diag_embed(diagonal_HT), added_HTT, rtol=1e-12, atol=1e-12)


def by_matrices(mixer, x_BTD):
    """The whole mixer by one dense matrix a head."""
    options, E, X = mixer.config, mixer.inner, mixer.config.groups * mixer.config.state
    into_BTI = x_BTD @ mixer.into.weight.T
    z_BTE, u_BTI, step_BTF = into_BTI.split([E, mixer.channels, 2 * mixer.heads], -1)
    taps_I1K = mixer.conv.weight[:, None]
    u_BIT = conv1d(u_BTI.mT, taps_I1K, mixer.conv.bias, padding=options.conv // 2, groups=len(taps_I1K))
    x_BTE, b, c, b2, c2 = silu(u_BIT.mT).split([E, X, X, X, X], -1)
    q, k = (torch.stack(pair, 2).unflatten(-1, (options.groups, -1)) for pair in ((c, c2), (b, b2)))
    step_BTFH = softplus(step_BTF.unflatten(-1, (2, -1)) + mixer.step_bias)
    log_decay_BTFH = -mixer.decay_log.exp() * step_BTFH
    rows = []
    for row in range(len(x_BTD)):
        M_HTT = formula(q[row], k[row], log_decay_BTFH[row])
        M_HTT = M_HTT.tril() * step_BTFH[row, :, 0].T[:, None] + M_HTT.triu() * step_BTFH[row, :, 1].T[:, None]
        x_HTP = x_BTE[row].unflatten(-1, (mixer.heads, -1)).transpose(0, 1)
        skip_HT = mixer.skip[:, None] + (0 if mixer.skip_map is None else mixer.skip_map.weight @ x_BTE[row].T)
        rows.append(
            ((M_HTT + torch.diag_embed(skip_HT.expand(-1, len(x_BTE[row])))) @ x_HTP).transpose(0, 1).flatten(1)
        )
    y_BTE = torch.stack(rows)
    y_BTE = y_BTE / (y_BTE.square().mean(-1, keepdim=True) + 1e-5).sqrt() * mixer.norm.weight  # then the gate
    return (y_BTE * silu(z_BTE)) @ mixer.output.weight.T


@pytest.mark.parametrize("diagonal", ["data", "fixed"])
def test_equals_its_dense_matrices(diagonal):
    mixer, x_BTD = build(diagonal=diagonal), torch.randn(2, 9, 8).double()
    with torch.no_grad():
        assert_close(mixer(x_BTD)[0], by_matrices(mixer, x_BTD), rtol=1e-10, atol=1e-10)


@pytest.mark.parity
def test_its_sums_are_those_of_transformers_mamba2():
    """Their scan forwards and on the reversed sequence, rolled by one position each; theirs is in float32."""
    mamba2 = pytest.importorskip("transformers.models.mamba2.modeling_mamba2")
    (q, k, step, _), rate_H = draw(), torch.rand(H)
    q, k, step, x_BTHP = q.float(), k.float(), step.float(), torch.randn(1, T, H, 5)

    def scan(direction, flip):
        given = [value.flip(1) if flip else value for value in (x_BTHP, *(v[:, :, direction] for v in (step, k, q)))]
        y_BTHP = mamba2.mamba2_chunk_scan(given[0], given[1], -rate_H, given[2], given[3], chunk_size=4)
        y_BTHP = y_BTHP.roll(1, 1)
        y_BTHP[:, 0] = 0
        return y_BTHP.flip(1) if flip else y_BTHP

    drive_BTFHP = x_BTHP[:, :, None] * step[..., None]
    got_BTHP = both_ways(q, k, drive_BTFHP, -rate_H * step)
    assert_close(got_BTHP, scan(0, flip=False) + scan(1, flip=True), rtol=1e-5, atol=1e-5)


def test_everything_is_seen_and_length_one_is_the_diagonal_alone():
    mixer, x_BTD = build(conv=1), torch.randn(1, 9, 8).double()
    seen_TT = torch.autograd.functional.jacobian(lambda x: mixer(x)[0].sum((0, 2)), x_BTD)[:, 0].abs().sum(2)
    assert bool((seen_TT > 0).all())
    alone = mixer(x_BTD[:, :1])[0]
    with torch.no_grad():
        assert_close(alone, by_matrices(mixer, x_BTD[:, :1]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("diagonal", ["data", "sum"])
def test_pads_and_documents_are_neither_shifted_nor_flipped_into_others(diagonal):
    """A flip or a roll of whole rows would bring pads to the front, and one document into the next."""
    mixer, x_BTD = build(diagonal=diagonal), torch.randn(2, 20, 8).double()
    starts_BT = torch.zeros(2, 20, dtype=torch.bool)
    starts_BT[0, [0, 7, 8]] = True
    starts_BT[1, 5] = True
    lengths_B = torch.tensor([20, 13])
    y_BTD, _ = mixer(x_BTD, layout=Layout(starts_BT=starts_BT, lengths_B=lengths_B))
    for row, begin, end in (0, 0, 7), (0, 7, 8), (0, 8, 20), (1, 0, 5), (1, 5, 13):
        alone_BTD, _ = mixer(x_BTD[row : row + 1, begin:end])
        assert_close(y_BTD[row : row + 1, begin:end], alone_BTD, rtol=1e-12, atol=1e-12)
    left_BTD = pad(x_BTD[:, :13], (0, 0, 7, 0), value=torch.nan)
    y_BTD, _ = mixer(left_BTD, layout=Layout(lengths_B=torch.tensor([13, 13]), side="left"))
    assert_close(y_BTD[:, 7:], mixer(x_BTD[:, :13])[0], rtol=1e-12, atol=1e-12)


def test_it_says_that_it_has_no_state():
    mixer, x_BTD = build(), torch.randn(1, 5, 8).double()
    assert mixer(x_BTD)[1] is None
    with pytest.raises(ConfigError, match="state"):
        mixer.initial_state(1)


@pytest.mark.parametrize(
    "options",
    [
        {"expand": 0},
        {"head_width": 3},
        {"state": 0},
        {"groups": 3},
        {"conv": 4},
        {"steps": (0.1, 0.01)},
        {"decay": (0.0, 1.0)},
        {"diagonal": "free"},
    ],
    ids=str,
)
def test_impossible_options_are_refused(options):
    (name,) = options
    with pytest.raises(ConfigError, match=name):
        Hydra(8, replace(Hydra.Config(**SMALL), **options))


def test_what_sets_time_scales_has_no_weight_decay():
    (group,) = build().param_groups()
    assert (set(group.names), group.weight_decay) == ({"step_bias", "decay_log", "skip"}, 0.0)
