import numpy as np
import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels._numba import SMALL, run
from seqloom.kernels.lattice import _arcs, _symbols, lattice_counts

PARTS = 8  # pieces of the rows that keep sums of their own, whatever the threads: so the sums do not depend on them
FLOATS = (torch.float32, torch.float64)


def refuses(*inputs: Tensor) -> str | None:
    """Serves the lattice, its adjoint and the counts."""
    floats = [value for value in inputs if value.is_floating_point()]
    if any(value.dtype not in FLOATS for value in floats):
        return "made for float32 and float64"
    if any(0 in value.shape for value in inputs):
        return "there is nothing to do"
    return None


def forward(emission_BTK: Tensor, move_GKK: Tensor, start_GK: Tensor, end_GK: Tensor, lengths_B: Tensor) -> Tensor:
    problem = _problem(emission_BTK, move_GKK, start_GK, end_GK, lengths_B)
    score_B = np.empty(len(emission_BTK))
    run(_arcs.score, _arcs.score_parallel, emission_BTK.numel(), problem, score_B)
    return torch.from_numpy(score_B).to(_widest(emission_BTK, move_GKK, start_GK, end_GK))


def backward(
    dscore_B: Tensor, emission_BTK: Tensor, move_GKK: Tensor, start_GK: Tensor, end_GK: Tensor, lengths_B: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    problem, (B, T, K) = _problem(emission_BTK, move_GKK, start_GK, end_GK, lengths_B), emission_BTK.shape
    parts = min(B, PARTS, 1 + emission_BTK.numel() // SMALL)
    demission_BTK, darc_PA = np.zeros((B, T, K)), np.zeros((parts, len(problem.arc_A)))
    dstart_BK, dend_BK = np.zeros((B, K)), np.zeros((B, K))
    results = (_array(dscore_B), demission_BTK, darc_PA, dstart_BK, dend_BK)
    run(_arcs.adjoint, _arcs.adjoint_parallel, emission_BTK.numel(), problem, *results)
    row_A, to_A, from_A = _places(_array(move_GKK))
    dmove_GKK = np.zeros(move_GKK.shape)
    dmove_GKK[row_A, from_A, to_A] = darc_PA.sum(0)
    dstart_GK, dend_GK = (
        d if len(d) == len(value) else d.sum(0, keepdims=True)
        for d, value in ((dstart_BK, start_GK), (dend_BK, end_GK))
    )
    pairs = zip((demission_BTK, dmove_GKK, dstart_GK, dend_GK), (emission_BTK, move_GKK, start_GK, end_GK), strict=True)
    demission, dmove, dstart, dend = (torch.from_numpy(d).to(value.dtype) for d, value in pairs)
    return demission, dmove, dstart, dend


def counts(
    symbol_BT: Tensor, lengths_B: Tensor, emission_VK: Tensor, move_KK: Tensor, start_GK: Tensor, end_GK: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    weights = [_array(value) for value in (emission_VK, move_KK, start_GK, end_GK)]
    if not weights[1].min() > 0 or any(_extreme(value) for value in weights):  # the reference keeps logs
        return lattice_counts.reference(symbol_BT, lengths_B, emission_VK, move_KK, start_GK, end_GK)
    symbols, lengths = _whole(symbol_BT, torch.int32), _whole(lengths_B, torch.int64)
    (B, T), (V, K) = symbols.shape, emission_VK.shape
    _check(lengths, T, (B, K), weights[1][None], *weights[2:])
    parts = int(min(B, PARTS, 1 + B * T // max(SMALL, V)))
    score_B, first_BK, last_BK = np.empty(B), np.zeros((B, K)), np.zeros((B, K))
    count_PVK, arc_PKK = np.zeros((parts, V, K)), np.zeros((parts, K, K))
    results = (score_B, count_PVK, arc_PKK, first_BK, last_BK)
    if _symbols.outside(symbols, lengths, V):
        raise ConfigError(f"a symbol lies outside the table of {V}")
    run(_symbols.counts, _symbols.counts_parallel, B * T, symbols, lengths, *weights, *results)
    found = (score_B, count_PVK.sum(0), arc_PKK.sum(0) * weights[1], first_BK, last_BK)
    score, count, arc, first, last = (torch.from_numpy(value).to(emission_VK.dtype) for value in found)
    return score, count, arc, first, last


FORWARDS = {"lattice": forward, "lattice_backward": backward, "lattice_counts": counts}


def _problem(
    emission_BTK: Tensor, move_GKK: Tensor, start_GK: Tensor, end_GK: Tensor, lengths_B: Tensor
) -> _arcs.Problem:
    """The arcs that are there, sorted by where they lead to: most lattices have few."""
    weight_GKK, first_GK, last_GK = _array(move_GKK), _array(start_GK), _array(end_GK)
    (B, T, K), lengths = emission_BTK.shape, _whole(lengths_B, torch.int64)
    _check(lengths, T, (B, K), weight_GKK, first_GK, last_GK)
    row_A, to_A, from_A = _places(weight_GKK)
    begin_GK = np.searchsorted(row_A * K + to_A, np.arange(len(weight_GKK) * K + 1))
    arc_A, narrow = weight_GKK[row_A, from_A, to_A], not _extreme(weight_GKK)
    e_BTK, log_A = _array(emission_BTK), np.log(arc_A)
    return _arcs.Problem(e_BTK, from_A, begin_GK, arc_A, log_A, first_GK, last_GK, lengths, narrow)


def _places(move_GKK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row of weights, end and beginning of every arc, in this order."""
    row_A, to_A, from_A = np.nonzero(move_GKK.transpose(0, 2, 1) > 0)
    return row_A, to_A, from_A


def _extreme(weight: np.ndarray) -> bool:
    """Whether a product of a few such weights might be lost."""
    return bool(((weight > 0) & (weight < _symbols.LEAST)).any() or (weight > _symbols.MOST).any())


def _check(lengths_B: np.ndarray, T: int, size: tuple[int, int], *weights: np.ndarray) -> None:
    """What compiled loops would not notice."""
    B, K = size
    if lengths_B.shape != (B,) or lengths_B.min() < 0 or lengths_B.max() > T:
        raise ConfigError(f"lengths of {B} rows of {T} steps lie in 0 .. {T}, not {lengths_B.tolist()[:8]}")
    for value in weights:
        if len(value) not in (1, B) or any(states != K for states in value.shape[1:]):
            raise ConfigError(f"weights of the shape {value.shape} for {B} rows and {K} states: give 1 row or {B}")


def _array(value: Tensor) -> np.ndarray:
    return value.detach().double().contiguous().numpy()


def _whole(value: Tensor, dtype: torch.dtype) -> np.ndarray:
    return value.detach().to(dtype).contiguous().numpy()


def _widest(*tensors: Tensor) -> torch.dtype:
    return torch.float64 if any(value.dtype == torch.float64 for value in tensors) else torch.float32
