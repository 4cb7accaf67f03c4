import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.conv.sgconv import SGConv

BARE = {"activation": "none", "output": "none"}


def build(width=3, dtype=torch.float64, **options):
    torch.manual_seed(1)
    return SGConv(width, SGConv.Config(**{"length": 50, "piece": 8, **BARE, **options})).to(dtype).eval()


def stretched(w, times):
    """Linear interpolation between the middles of cells, flat beyond the outer ones: numpy.interp."""
    middle = (np.arange(len(w) * times) + 0.5) / times - 0.5
    return np.interp(middle, np.arange(len(w)), w)


def joined(mixer, r, d):
    """Pieces of one kernel before the division, after the published code, in numpy."""
    options, S = mixer.config, mixer.scales
    m = np.linspace(options.decay[0], options.decay[1], mixer.width)[d]
    w = mixer.pieces.detach().numpy()[:, r, d]
    if options.join == "cat":
        return np.concatenate(
            [stretched(w[i], 2 ** (max(i - 1, 0) + options.widen)) * m ** (S - 1 - i) for i in range(S)]
        )
    k = np.zeros(options.piece * 2 ** (S - 1 + options.widen))
    for i in range(S):
        part = stretched(w[i], 2 ** (i + options.widen)) * m ** (S - 1 - i)
        k[: len(part)] += part
    return k


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decay": (1.0, 3.0), "causal": False},
        {"join": "sum", "start": "cosine"},
        {"widen": 1},
        {"length": 5, "piece": 8},
        {"length": 50, "piece": 7, "widen": 2, "join": "sum"},
    ],
)
@pytest.mark.parametrize("length", [1, 13, 64, 200])
def test_kernel_equals_the_published_one(options, length):
    mixer = build(**options)
    with torch.no_grad():
        first_RD = mixer.norm.clone()
        mixer.pieces.mul_(1.5).add_(0.1)  # Z stays that of the beginning
    k_RDL = mixer.kernel(length)
    for r in range(mixer.readouts):
        for d in range(mixer.width):
            k = joined(mixer, r, d)
            want = np.zeros(length)
            want[: min(length, len(k))] = k[:length] / first_RD[r, d].item()
            assert_close(k_RDL[r, d], torch.from_numpy(want), rtol=1e-6, atol=1e-7)  # Z was summed in float32


def test_first_norm_is_one_and_constant():
    mixer = build(dtype=torch.float32)
    assert_close(mixer.kernel(64).norm(dim=-1), torch.ones(1, 3))
    with torch.no_grad():
        mixer.pieces.mul_(3)
    assert_close(mixer.kernel(64).norm(dim=-1), torch.full((1, 3), 3.0))
    other = SGConv(3, mixer.config)
    other.load_state_dict(mixer.state_dict())
    assert_close(other.kernel(64), mixer.kernel(64))


@pytest.mark.parametrize(("length", "piece"), [(1024, 64), (1000, 64), (1 << 20, 64), (8, 8), (9, 8)])
def test_parameters_grow_with_the_logarithm(length, piece):
    mixer = SGConv(2, SGConv.Config(length=length, piece=piece))
    S = 1 + math.ceil(math.log2(length / piece))
    assert mixer.pieces.numel() == 2 * piece * S
    assert mixer._joined().shape[-1] == piece * 2 ** (S - 1) >= length


def test_weights_fall_with_the_distance():
    """Root mean square of each piece: half that of the one before at decay 2, the nearest one largest."""
    torch.manual_seed(0)
    mixer = SGConv(256, SGConv.Config(length=1024, piece=16))
    k_DL = mixer.kernel(1024)[0].detach()
    edges = [0, 16, 32, 64, 128, 256, 512, 1024]
    sizes = torch.stack([k_DL[:, a:b].square().mean().sqrt() for a, b in pairwise(edges)])
    slope = np.polyfit(np.log2(edges[1:]), sizes.log2().numpy(), 1)[0]
    assert bool((sizes[:-1] > sizes[1:]).all())
    assert -1.15 < slope < -0.85


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("T", [1, 2, 17, 97])
def test_equals_the_dense_matrices(causal, T):
    """Rows shorter and longer than the kernel of 64 taps; lag 0 once."""
    mixer, x_BTD = build(causal=causal), torch.randn(2, T, 3).double()
    k_RDT, want_BTD = mixer.kernel(T).detach(), torch.zeros(2, T, 3).double()
    for t in range(T):
        for s in range(T):
            if s <= t:
                want_BTD[:, t] += k_RDT[0, :, t - s] * x_BTD[:, s]
            elif not causal:
                want_BTD[:, t] += k_RDT[1, :, s - t - 1] * x_BTD[:, s]
    want_BTD += mixer.skip.detach() * x_BTD
    assert_close(mixer(x_BTD)[0].detach(), want_BTD, rtol=1e-11, atol=1e-11)


def feed(mixer, x_BTD, sizes, state):
    pieces = []
    for x in x_BTD.split(sizes, 1):
        y, state = mixer(x, state)
        pieces.append(y)
    return torch.cat(pieces, 1), state


@pytest.mark.parametrize("capacity", [None, 333, 1000])
@pytest.mark.parametrize("sizes", [[1] * 333, [100, *[1] * 133, 60, *[1] * 40], [2, 3] * 66 + [3]])
@torch.no_grad()
def test_any_split_equals_the_whole(capacity, sizes):
    mixer, x_BTD = build(), torch.randn(2, 333, 3).double()
    y_BTD, _ = feed(mixer, x_BTD, sizes, mixer.initial_state(2, capacity=capacity))
    assert_close(y_BTD, mixer(x_BTD)[0], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_any_number_of_inputs_is_forgotten():
    mixer, x_BTD = build(), torch.randn(3, 150, 3).double()
    _, state = feed(mixer, x_BTD[:, :90], [1] * 90, mixer.initial_state(3, capacity=150))
    back = [0, 1, 77]
    state = state.rollback(torch.tensor(back))
    rest_BTD = torch.stack([x_BTD[b, 90 - n : 150 - n] for b, n in enumerate(back)])
    y_BTD, state = feed(mixer, rest_BTD, [1] * 60, state)
    want_BTD = mixer(x_BTD)[0]
    for b, n in enumerate(back):
        assert_close(y_BTD[b], want_BTD[b, 90 - n : 150 - n], rtol=1e-12, atol=1e-12)
    with pytest.raises(ConfigError, match="cannot go back by"):
        state.rollback(torch.tensor([0, 0, 1000]))


@torch.no_grad()
def test_packed_rows_keep_the_last_segment():
    mixer, x_BTD = build(), torch.randn(2, 40, 3).double()
    starts_BT = torch.zeros(2, 40, dtype=torch.bool)
    starts_BT[0, 25] = starts_BT[1, 0] = starts_BT[1, 8] = True
    _, state = feed(mixer, x_BTD, [1] * 40, mixer.initial_state(2, capacity=120))
    y_BTD, state = mixer(x_BTD, state, layout=Layout(starts_BT=starts_BT))
    assert state.length_B.tolist() == [15, 32]
    z_BTD, _ = feed(mixer, x_BTD, [1] * 40, state)
    for b, begin in enumerate((25, 8)):
        want_BTD = mixer(torch.cat([x_BTD[b : b + 1, begin:], x_BTD[b : b + 1]], 1))[0]
        assert_close(y_BTD[b, begin:], want_BTD[0, : 40 - begin], rtol=1e-12, atol=1e-12)
        assert_close(z_BTD[b], want_BTD[0, 40 - begin :], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"length": 0}, "length"),
        ({"piece": 0}, "piece"),
        ({"widen": -1}, "widen"),
        ({"decay": (0.0, 2.0)}, "decay"),
        ({"join": "add"}, "join"),
        ({"start": "ones"}, "start"),
    ],
)
def test_bad_options_are_refused(options, word):
    with pytest.raises(ConfigError, match=rf"sgconv.*{word}"):
        SGConv(3, SGConv.Config(**options))


@pytest.mark.parametrize("join", ["cat", "sum"])
def test_a_short_kernel_is_the_beginning_of_the_long_one(join):
    """Pieces that a short row cannot reach are not made, and change nothing."""
    mixer = SGConv(3, SGConv.Config(length=64, piece=4, join=join))
    whole_RDL = mixer.filters(100)
    for length in (1, 4, 5, 9, 63, 64, 100):
        assert torch.equal(mixer.filters(length), whole_RDL[..., :length])
