"""The lattice against every path one by one, torch's CTC, a recursion over segmentations, and hmmlearn."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.lattice import _symbols, lattice, lattice_backward, lattice_counts

BACKENDS = ["reference", "numba_cpu"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.05


def rows(*shape: int, seed: int = 0) -> Tensor:
    weight = draw(*shape, seed=seed)
    return weight / weight.sum(-1, keepdim=True)


def paths(e_TK: Tensor, move_KK: Tensor, start_K: Tensor, end_K: Tensor) -> tuple[float, np.ndarray, np.ndarray]:
    """Score, posteriors (T, K) and expected arcs (K, K), every path by itself."""
    (T, K), total = e_TK.shape, 0.0
    state_TK, arc_KK = np.zeros((T, K)), np.zeros((K, K))
    for path in itertools.product(range(K), repeat=T):
        arcs = list(itertools.pairwise(path))
        weight = float(start_K[path[0]] * end_K[path[-1]] * np.exp(sum(float(e_TK[t, k]) for t, k in enumerate(path))))
        weight *= float(np.prod([float(move_KK[arc]) for arc in arcs]))
        total += weight
        state_TK[range(T), path] += weight
        for arc in arcs:
            arc_KK[arc] += weight
    return np.log(total), state_TK / total, arc_KK / total


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_every_path_one_by_one(backend: str) -> None:
    emission_BTK, move_GKK, start_GK, end_GK = draw(2, 5, 3).log(), draw(2, 3, 3, seed=1), draw(1, 3), draw(2, 3)
    move_GKK[:, 0, 2] = 0
    inputs = [value.requires_grad_() for value in (emission_BTK, move_GKK, start_GK, end_GK)]
    with use_backend(backend):
        score_B = lattice(*inputs, torch.tensor([5, 4]))
        demission_BTK, dmove_GKK = torch.autograd.grad(score_B.sum(), inputs[:2])
    for b, length in enumerate((5, 4)):
        wanted = paths(*(v.detach() for v in (emission_BTK[b, :length], move_GKK[b], start_GK[0], end_GK[b])))
        assert_close(score_B[b].item(), wanted[0])
        assert_close(demission_BTK[b, :length].numpy(), wanted[1])
        assert_close((dmove_GKK * move_GKK)[b].detach().numpy(), wanted[2])
    assert not demission_BTK[1, 4:].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctc_is_a_lattice(backend: str) -> None:
    log_p_TBV = (4 * draw(12, 2, 5)).log_softmax(-1).requires_grad_()
    labels, lengths_B = [[1, 2, 2, 4], [3]], torch.tensor([12, 9])
    state_BK = torch.zeros(2, 9, dtype=torch.long)
    move_BKK, start_BK, end_BK = torch.zeros(2, 9, 9), torch.zeros(2, 9), torch.zeros(2, 9)
    for b, line in enumerate(labels):
        states = 2 * len(line) + 1
        state_BK[b, 1:states:2] = torch.tensor(line)
        start_BK[b, :2], end_BK[b, states - 2 : states] = 1, 1
        for k in range(states):
            skip = k % 2 and k > 1 and state_BK[b, k] != state_BK[b, k - 2]
            move_BKK[b, max(0, k - (2 if skip else 1)) : k + 1, k] = 1
    emission_BTK = log_p_TBV.transpose(0, 1).gather(2, state_BK[:, None].expand(-1, 12, -1))
    with use_backend(backend):
        loss_B = -lattice(emission_BTK, move_BKK.double(), start_BK.double(), end_BK.double(), lengths_B)
        (got,) = torch.autograd.grad(loss_B.sum(), log_p_TBV)
    targets_N = torch.tensor([label for line in labels for label in line])
    free = log_p_TBV.detach().requires_grad_()
    options = {"reduction": "none", "blank": 0}
    wanted_B = torch.nn.functional.ctc_loss(free, targets_N, lengths_B, torch.tensor([4, 1]), **options)
    assert_close(loss_B, wanted_B)
    # torch's own gradient supposes a softmax in front of it: both are compared behind one
    (wanted,) = torch.autograd.grad(wanted_B.sum(), free)
    through = got - free.detach().exp() * got.sum(-1, keepdim=True)
    assert_close(through, wanted - free.detach().exp() * wanted.sum(-1, keepdim=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_segmentation_is_a_lattice(backend: str) -> None:
    """Sum over all ways to cut 11 symbols into segments of at most 3, by the plain recursion over cuts."""
    longest, T = 3, 11
    score_TL = 8 * draw(T, longest).log()  # of the segment that begins at t and has l + 1 symbols
    states = [("begin", length) for length in range(1, longest + 1)] + [("left", r) for r in range(longest - 1)]
    place = {state: k for k, state in enumerate(states)}
    move_KK, end_K = torch.zeros(len(states), len(states)).double(), torch.zeros(len(states)).double()
    for (kind, n), k in place.items():
        left = n - 1 if kind == "begin" else n
        if left:
            move_KK[k, place["left", left - 1]] = 1
        else:
            move_KK[k, [place["begin", length] for length in range(1, longest + 1)]] = 1
            end_K[k] = 1
    start_K = torch.tensor([kind == "begin" for kind, _ in states]).double()
    emission_TK = torch.zeros(T, len(states)).double()
    emission_TK[:, :longest] = score_TL
    with use_backend(backend):
        got_B = lattice(emission_TK[None], move_KK[None], start_K[None], end_K[None], torch.tensor([T]))
    sums = [1.0] + [0.0] * T
    for t in range(T):
        for length in range(1, min(longest, T - t) + 1):
            sums[t + length] += sums[t] * float(score_TL[t, length - 1].exp())
    assert_close(got_B.item(), float(np.log(sums[T])))


@pytest.mark.parametrize("seed", range(4))
def test_a_state_that_scaling_would_lose_is_kept(seed: int) -> None:
    """The likely state leads nowhere: the way to the end goes through one of e^-900 of its weight and less."""
    emission_BTK = torch.zeros(1, 40, 3).double()
    emission_BTK[0, :, 1:] = -30 - draw(40, 2, seed=seed)
    move_GKK = torch.tensor([[[1.0, 0, 0], [0, 0.5, 0.5], [0, 0, 1]]]).double()
    start_GK, end_GK = torch.tensor([[1.0, 1, 0]]).double(), torch.tensor([[0.0, 0, 1]]).double()
    inputs = (emission_BTK, move_GKK, start_GK, end_GK, torch.tensor([40]))
    with use_backend("numba_cpu"):
        got_B, grads = lattice(*inputs), lattice_backward(torch.ones(1).double(), *inputs)
    with use_backend("reference"):
        assert_close(got_B, lattice(*inputs))
        for one, other in zip(grads, lattice_backward(torch.ones(1).double(), *inputs), strict=True):
            assert_close(one, other)
    assert got_B.item() < -1200
    assert_close(grads[0].sum().item(), 40.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_where_no_path_leads_through(backend: str) -> None:
    emission_BTK, move_GKK = draw(2, 3, 2).log(), torch.eye(2).double()[None]
    start_GK, end_GK = torch.tensor([[1.0, 0]]).double(), torch.tensor([[0.0, 1]]).double()
    emission_BTK.requires_grad_()
    with use_backend(backend):
        score_B = lattice(emission_BTK, move_GKK, start_GK, end_GK, torch.tensor([3, 0]))
        (demission_BTK,) = torch.autograd.grad(score_B.sum(), emission_BTK)
    assert score_B.tolist() == [-np.inf, 0.0]
    assert not demission_BTK.any()


def table(B: int, T: int, K: int, V: int, G: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(3)
    lengths_B = torch.randint(0, T + 1, (B,), generator=rng)
    lengths_B[0] = T
    symbol_BT = torch.randint(0, V, (B, T), generator=rng)
    return [symbol_BT, lengths_B, draw(V, K), rows(K, K, seed=1), rows(G, K, seed=2), draw(G, K, seed=4)]


@pytest.mark.parametrize("sizes", [(7, 9, 3, 5, 7), (1, 2 * _symbols.PIECE + 5, 2, 3, 1), (2, _symbols.PIECE, 5, 4, 1)])
def test_counts_do_not_depend_on_who_counts(sizes: tuple[int, ...]) -> None:
    """No gradient is asked for, so that the backend itself runs; rows longer than a piece are made again from edges."""
    inputs = table(*sizes)
    with use_backend("reference"):
        wanted = lattice_counts(*inputs)
    with use_backend("numba_cpu"):
        got = lattice_counts(*inputs)
    for one, other in zip(got, wanted, strict=True):
        assert_close(one, other, rtol=1e-9, atol=1e-9)
    lengths_B = inputs[1]
    assert_close(got[1].sum(), lengths_B.sum().double())
    assert_close(got[2].sum(), (lengths_B - 1).clamp(min=0).sum().double())


def test_nothing_depends_on_the_threads() -> None:
    inputs, before, found = table(40, 900, 4, 6, 1), torch.get_num_threads(), []
    given = (inputs[2].log()[inputs[0]], inputs[3][None], *inputs[4:], inputs[1])
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with use_backend("numba_cpu"):
                grads = lattice_backward(torch.ones(40).double(), *given)
                found.append([*lattice_counts(*inputs), lattice(*given), *grads])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert_close(found[0][0], found[0][5])  # the two kernels by each other
    assert_close(found[0][2], found[0][7][0] * inputs[3])


def test_arcs_that_are_absent_are_counted_in_logs() -> None:
    symbol_BT, lengths_B, emission_VK, _, start_GK, end_GK = table(3, 8, 3, 4, 1)
    chain_KK = torch.tensor([[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]]).double()
    found = lattice_counts(symbol_BT, lengths_B, emission_VK, chain_KK, start_GK, end_GK)
    log_BTK = emission_VK.log()[symbol_BT]
    for b, length in enumerate(lengths_B.tolist()):
        if length:
            score, state_TK, _ = paths(log_BTK[b, :length], chain_KK, start_GK[0], end_GK[0])
            assert_close(found[0][b].item(), score)
            assert_close(found[3][b].numpy(), state_TK[0])
            assert_close(found[4][b].numpy(), state_TK[-1])
    assert not found[2][chain_KK == 0].any()


def test_what_compiled_loops_would_not_notice() -> None:
    inputs = table(2, 4, 3, 5, 1)
    with pytest.raises(ConfigError, match="outside the table of 4"):
        lattice_counts(inputs[0].fill_(4), inputs[1], inputs[2][:4].clone(), *inputs[3:])
    with pytest.raises(ConfigError, match=r"lie in 0 \.\. 4"):
        lattice_counts(inputs[0], inputs[1] + 4, *inputs[2:])
    with pytest.raises(ConfigError, match="2 rows and 3 states"):
        lattice_counts(*inputs[:4], rows(3, 3), inputs[5])


@pytest.mark.parity
@pytest.mark.parametrize("backend", BACKENDS)
def test_scores_and_posteriors_are_those_of_hmmlearn(backend: str) -> None:
    hmm = pytest.importorskip("hmmlearn.hmm")
    symbol_BT, lengths_B, _, move_KK, start_GK, _ = table(4, 30, 5, 7, 1)
    lengths_B.clamp_(min=1)
    emission_KV = rows(5, 7, seed=8)
    peer = hmm.CategoricalHMM(5, init_params="")
    peer.startprob_, peer.transmat_, peer.emissionprob_ = start_GK[0].numpy(), move_KK.numpy(), emission_KV.numpy()
    peer.n_features = 7
    emission_BTK = emission_KV.T.log()[symbol_BT].requires_grad_()
    with use_backend(backend):
        score_B = lattice(emission_BTK, move_KK[None], start_GK, torch.ones_like(start_GK), lengths_B)
        (posterior_BTK,) = torch.autograd.grad(score_B.sum(), emission_BTK)
    for b, length in enumerate(lengths_B.tolist()):
        score, wanted_TK = peer.score_samples(symbol_BT[b, :length, None].numpy())
        assert_close(score_B[b].item(), float(score), rtol=1e-8, atol=1e-8)
        assert_close(posterior_BTK[b, :length].numpy(), wanted_TK, rtol=1e-8, atol=1e-8)


@pytest.mark.parity
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_step_is_that_of_hmmlearn(backend: str) -> None:
    hmm = pytest.importorskip("hmmlearn.hmm")
    symbol_BT, lengths_B, _, move_KK, start_GK, _ = table(6, 25, 4, 6, 1)
    lengths_B.clamp_(min=1)
    emission_KV = rows(4, 6, seed=8)
    peer = hmm.CategoricalHMM(4, init_params="", n_iter=1, tol=-np.inf)
    peer.startprob_, peer.transmat_, peer.emissionprob_ = start_GK[0].numpy(), move_KK.numpy(), emission_KV.numpy()
    lines = [symbol_BT[b, :length].numpy() for b, length in enumerate(lengths_B.tolist())]
    peer.fit(np.concatenate(lines)[:, None], [len(line) for line in lines])
    with use_backend(backend):
        ends_GK, table_VK = torch.ones_like(start_GK), emission_KV.T.contiguous()
        found = lattice_counts(symbol_BT, lengths_B, table_VK, move_KK, start_GK, ends_GK)
    assert_close(found[0].sum().item(), peer.monitor_.history[0], rtol=1e-8, atol=1e-8)
    for mine, theirs in (
        (found[1].T, peer.emissionprob_),
        (found[2], peer.transmat_),
        (found[3].sum(0), peer.startprob_),
    ):
        wanted = mine / mine.sum(-1, keepdim=True)
        assert_close(wanted.numpy(), theirs, rtol=1e-8, atol=1e-8)
