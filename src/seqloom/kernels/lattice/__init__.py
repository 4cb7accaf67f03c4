"""Every path through a lattice of states, summed: what hidden Markov models, CTC and segmentation have in common.

    a_1(k) = start(k) exp(e_1k)    a_t(k) = sum_j a_{t-1}(j) move(j, k) exp(e_tk)    score = log sum_k a_n(k) end(k)

The weights of arcs are numbers >= 0, and need not sum to 1; the emissions are logs, of any size. The gradient of the
score by an emission is the share of all paths that pass there, the posterior of a state; its gradient by an arc's
weight, times the weight, is how often the arc is taken. A row without steps has the score 0.

    hidden Markov model   e_tk = log p(x_t | k), move dense, one for all rows; end = 1, or the probability of ending
    CTC                   the labels with blanks between them are the states, e_tk = log p_t(label of k); move is 1 to
                          the same state, to the next, and over a blank between different labels; start is 1 at the
                          first two states, end at the last two: G = B, three arcs a state
    segmentation          a state "begins a segment of l symbols" for each l, e_tk = log p(x_t .. x_{t+l-1}), and states
                          "r symbols are left", e_tk = 0; arcs count down, and lead from where nothing is left to all
                          beginnings; end = 1 where nothing is left

``lattice_counts`` is the same for emissions that are a table of symbols, with expected counts instead of gradients: one
half-step of Baum and Welch, without a (B, T, K) anywhere.

Shapes: B rows, T time, K states, V symbols, G rows of weights: 1 for all or B.
Source: Baum, Petrie, Soules and Weiss, "A maximization technique occurring in the statistical analysis of probabilistic
functions of Markov chains", 1970; Rabiner, "A tutorial on hidden Markov models", 1989, sections III.A, III.C and V.A.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from seqloom.kernels._kernel import Cost, kernel

NEVER = -1e30  # the log of 0 that has a derivative


@kernel
def lattice(emission_BTK: Tensor, move_GKK: Tensor, start_GK: Tensor, end_GK: Tensor, lengths_B: Tensor) -> Tensor:
    """Return the score (B,) of every row; -inf where no path leads through. This body is the meaning.

    Args:
        emission_BTK: logs; -inf closes a state at a step. What lies behind a row's length is not read.
        move_GKK: weight of the arc from j to k in [:, j, k]; where it is 0 there is no arc, and no gradient.
        start_GK: weights of the first state.
        end_GK: weights of the last one.
        lengths_B: steps of each row.
    """
    dtype = _dtype(emission_BTK, move_GKK, start_GK, end_GK)
    wide = torch.float64  # a share is the exp of a difference of large logs
    e_BTK, weights = _clean(emission_BTK.to(wide), lengths_B), (move_GKK.to(wide), start_GK.to(wide), end_GK.to(wide))
    a_BTK = _forward(e_BTK, *(_log(value) for value in weights[:2]))
    score_B = torch.logsumexp(_last(a_BTK, lengths_B) + _log(weights[2]), 1)
    score_B = torch.where(score_B > NEVER / 2, score_B, -torch.inf)
    return torch.where(lengths_B > 0, score_B, 0).to(dtype)


@lattice.shapes
def shapes(emission_BTK: Tensor, move_GKK: Tensor, start_GK: Tensor, end_GK: Tensor, lengths_B: Tensor) -> Tensor:
    return emission_BTK.new_empty(len(emission_BTK), dtype=_dtype(emission_BTK, move_GKK, start_GK, end_GK))


@lattice.vjp(outputs=())
def backward(grads, inputs, outputs):
    return (*lattice_backward(grads[0], *inputs), None)


@lattice.cost
def cost(emission_BTK: Tensor, move_GKK: Tensor, start_GK: Tensor, end_GK: Tensor, lengths_B: Tensor) -> Cost:
    """Every arc of every step, as if all were there."""
    tensors = (emission_BTK, move_GKK, start_GK, end_GK, lengths_B)
    return Cost(emission_BTK.numel() * move_GKK.shape[-1], sum(value.nbytes for value in tensors))


@lattice.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    """One step, dense, no step, then arcs that differ by row, closed states, a row that no path leads through."""

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=rng, dtype=dtype) + 0.1

    yield draw(1, 1, 1).log(), draw(1, 1, 1), draw(1, 1), draw(1, 1), torch.tensor([1])
    yield draw(2, 3, 3).log(), draw(1, 3, 3), draw(1, 3), draw(2, 3), torch.tensor([3, 2])
    yield draw(2, 0, 3), draw(2, 3, 3), draw(1, 3), draw(1, 3), torch.tensor([0, 0])
    band_KK = torch.eye(9, dtype=dtype)
    band_KK = band_KK + torch.roll(band_KK, 1, 1).triu() + torch.roll(band_KK, 2, 1).triu()
    first_K = torch.tensor([1, 1, *[0] * 7], dtype=dtype)
    emission_BTK, move_GKK = 40 * draw(3, 21, 9).log(), band_KK * draw(3, 9, 9)
    emission_BTK[0, 4, 3:], move_GKK[1, 4], move_GKK[1, :5, 5:] = -torch.inf, 0, 0
    yield emission_BTK, move_GKK, first_K[None], first_K.flip(0).expand(3, 9), torch.tensor([21, 20, 0])
    yield draw(5, 67, 17).log(), draw(1, 17, 17), draw(5, 17), draw(1, 17), torch.tensor([67, 1, 0, 33, 66])


@kernel
def lattice_backward(
    dscore_B: Tensor, emission_BTK: Tensor, move_GKK: Tensor, start_GK: Tensor, end_GK: Tensor, lengths_B: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the emissions, arcs, starts and ends; with dscore = 1 the first are the posteriors."""
    wide = torch.float64
    e_BTK, inside_BT1 = _clean(emission_BTK.to(wide), lengths_B), _inside(emission_BTK, lengths_B)[..., None]
    weights = tuple(value.to(wide) for value in (move_GKK, start_GK, end_GK))
    log_move_GKK, log_start_GK, log_end_GK = (_log(value) for value in weights)
    a_BTK, b_BTK = _forward(e_BTK, log_move_GKK, log_start_GK), _back(e_BTK, log_move_GKK, log_end_GK, lengths_B)
    score_B = torch.logsumexp(_last(a_BTK, lengths_B) + log_end_GK, 1)
    possible_B = (score_B > NEVER / 2) & (lengths_B > 0)
    share_B11 = torch.where(possible_B, dscore_B.to(wide), 0)[:, None, None]
    score_B11 = torch.where(possible_B, score_B, 0)[:, None, None]

    def part(log: Tensor, open: Tensor) -> Tensor:
        """What a log share of all paths comes to, times dscore; 0 where it is closed."""
        open = open & possible_B[:, None, None]
        return torch.where(open, torch.where(open, log, 0).exp() * share_B11, 0)

    demission_BTK = part(a_BTK + b_BTK - score_B11, inside_BT1 & (e_BTK > NEVER))
    arcs_BKK = torch.zeros_like(log_move_GKK).expand(len(e_BTK), -1, -1)
    for t in range(1, e_BTK.shape[1]):
        after_B1K = (e_BTK[:, t] + b_BTK[:, t])[:, None]
        arcs_BKK = arcs_BKK + part(a_BTK[:, t - 1, :, None] + after_B1K - score_B11, inside_BT1[:, t, :, None])
    if not e_BTK.shape[1]:
        zeros = [torch.zeros_like(value) for value in (emission_BTK, move_GKK, start_GK, end_GK)]
        return zeros[0], zeros[1], zeros[2], zeros[3]
    dstart_B1K = part((e_BTK[:, 0] + b_BTK[:, 0])[:, None] - score_B11, inside_BT1[:, :1])
    dend_B1K = part(_last(a_BTK, lengths_B)[:, None] - score_B11, inside_BT1[:, :1])
    rows = zip((arcs_BKK, dstart_B1K[:, 0], dend_B1K[:, 0]), (move_GKK, start_GK, end_GK), strict=True)
    dmove, dstart, dend = (torch.where(value > 0, _gather(d, len(value)), 0).to(value.dtype) for d, value in rows)
    return demission_BTK.to(emission_BTK.dtype), dmove, dstart, dend


@lattice_backward.shapes
def backward_shapes(
    dscore_B: Tensor, emission_BTK: Tensor, move_GKK: Tensor, start_GK: Tensor, end_GK: Tensor, lengths_B: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    emission, move, start, end = (v.new_empty(v.shape) for v in (emission_BTK, move_GKK, start_GK, end_GK))
    return emission, move, start, end


@lattice_backward.cost
def backward_cost(
    dscore_B: Tensor, emission_BTK: Tensor, move_GKK: Tensor, start_GK: Tensor, end_GK: Tensor, lengths_B: Tensor
) -> Cost:
    """The forward recursion once more, the backward one, and the arcs' shares."""
    read = cost(emission_BTK, move_GKK, start_GK, end_GK, lengths_B)
    return Cost(3 * read.macs, 2 * read.bytes + dscore_B.nbytes)


@lattice_backward.cases
def backward_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    """Adjoints of the lattice's own cases."""
    for case in examples(rng, dtype):
        yield torch.rand(len(case[0]), generator=rng, dtype=dtype), *case


@kernel
def lattice_counts(
    symbol_BT: Tensor, lengths_B: Tensor, emission_VK: Tensor, move_KK: Tensor, start_GK: Tensor, end_GK: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the scores (B,) and the expected counts of a table of symbols.

    How often, by all paths of all rows together, a state gives a symbol (V, K) and an arc is taken (K, K); and each
    row's posteriors of its first and of its last state (B, K), 0 where it has none.

    Args:
        symbol_BT: numbers of the symbols; what lies behind a row's length is not read.
        lengths_B: symbols of each row.
        emission_VK: weight, no log, of a symbol in a state; so are the others.
        move_KK: arcs, as in ``lattice``.
        start_GK: weights of the first state.
        end_GK: weights of the last one.
    """
    inside_BT = _inside(symbol_BT, lengths_B)
    safe_BT = torch.where(inside_BT, symbol_BT, 0).long()
    log_BTK = _log(emission_VK)[safe_BT] if safe_BT.numel() else emission_VK.new_zeros(*safe_BT.shape, len(move_KK))
    given = (log_BTK, move_KK[None], start_GK, end_GK, lengths_B)
    score_B = lattice.reference(*given)
    dlog_BTK, dmove_1KK, _, _ = lattice_backward.reference(torch.ones_like(score_B), *given)
    count_VK = torch.zeros_like(emission_VK).index_add(0, safe_BT.flatten(), dlog_BTK.flatten(0, 1))
    if not symbol_BT.shape[1]:
        none_BK = log_BTK.new_zeros(len(symbol_BT), len(move_KK))
        return score_B, count_VK, torch.zeros_like(move_KK), none_BK, none_BK.clone()
    return score_B, count_VK, dmove_1KK[0] * move_KK, dlog_BTK[:, 0].clone(), _last(dlog_BTK, lengths_B)


@lattice_counts.shapes
def counts_shapes(
    symbol_BT: Tensor, lengths_B: Tensor, emission_VK: Tensor, move_KK: Tensor, start_GK: Tensor, end_GK: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    B, K = len(symbol_BT), len(move_KK)
    sizes = ((B,), tuple(emission_VK.shape), (K, K), (B, K), (B, K))
    score_B, count_VK, arc_KK, first_BK, last_BK = (emission_VK.new_empty(size) for size in sizes)
    return score_B, count_VK, arc_KK, first_BK, last_BK


@lattice_counts.cost
def counts_cost(
    symbol_BT: Tensor, lengths_B: Tensor, emission_VK: Tensor, move_KK: Tensor, start_GK: Tensor, end_GK: Tensor
) -> Cost:
    """Forwards, backwards and the arcs' shares: three products with the arcs a symbol."""
    tensors = (symbol_BT, lengths_B, emission_VK, move_KK, start_GK, end_GK)
    return Cost(3 * symbol_BT.numel() * move_KK.numel(), sum(value.nbytes for value in tensors))


@lattice_counts.cases
def counts_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor, ...]]:
    """One step, a few, none, more states than a vector holds."""
    for B, T, K, V, G in (1, 1, 1, 1, 1), (2, 3, 2, 3, 1), (2, 0, 3, 4, 2), (3, 23, 5, 7, 3), (5, 67, 17, 11, 1):
        weights = (torch.rand(size, generator=rng, dtype=dtype) + 0.01 for size in ((V, K), (K, K), (G, K), (G, K)))
        lengths_B = torch.randint(0, T + 1, (B,), generator=rng)
        lengths_B[:1] = T
        yield torch.randint(0, V, (B, T), generator=rng), lengths_B, *weights


def _forward(e_BTK: Tensor, log_move_GKK: Tensor, log_start_GK: Tensor) -> Tensor:
    """Logs of a (B, T, K), also behind a row's length."""
    rows = []
    for t, e_BK in enumerate(e_BTK.unbind(1)):
        into_BK = torch.logsumexp(rows[-1][:, :, None] + log_move_GKK, 1) if t else log_start_GK
        rows.append((into_BK + e_BK).clamp(min=2 * NEVER))
    return torch.stack(rows, 1) if rows else e_BTK


def _back(e_BTK: Tensor, log_move_GKK: Tensor, log_end_GK: Tensor, lengths_B: Tensor) -> Tensor:
    """Logs of the weight of all ways from each state to the end (B, T, K)."""
    rows, b_BK = [], log_end_GK.expand(len(e_BTK), -1)
    for t in reversed(range(e_BTK.shape[1])):
        if rows:
            on_BK = torch.logsumexp(log_move_GKK + (e_BTK[:, t + 1] + b_BK)[:, None], 2).clamp(min=2 * NEVER)
            b_BK = torch.where((t + 1 < lengths_B)[:, None], on_BK, log_end_GK)
        rows.append(b_BK)
    return torch.stack(rows[::-1], 1) if rows else e_BTK


def _last(a_BTK: Tensor, lengths_B: Tensor) -> Tensor:
    if not a_BTK.shape[1]:
        return a_BTK.sum(1)
    at_B11 = (lengths_B - 1).clamp(min=0)[:, None, None]
    return a_BTK.take_along_dim(at_B11.expand(-1, 1, a_BTK.shape[2]), 1)[:, 0]


def _log(weight: Tensor) -> Tensor:
    return torch.where(weight > 0, torch.where(weight > 0, weight, 1).log(), NEVER)


def _clean(e_BTK: Tensor, lengths_B: Tensor) -> Tensor:
    """-inf has no derivative, and what lies behind a row's length may be anything."""
    return e_BTK.masked_fill(~_inside(e_BTK, lengths_B)[..., None], 0).clamp(min=NEVER)


def _inside(x_BT: Tensor, lengths_B: Tensor) -> Tensor:
    return torch.arange(x_BT.shape[1], device=x_BT.device) < lengths_B[:, None]


def _gather(d: Tensor, rows: int) -> Tensor:
    return d if len(d) == rows else d.sum(0, keepdim=True)


def _dtype(*tensors: Tensor) -> torch.dtype:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
