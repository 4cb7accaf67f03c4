"""Paths into the future: what a network of real values writes behind each sequence, many paths of many rows at once.

    y_{t+1} ~ p(. | y_1 .. y_t),   y_{t+2} ~ p(. | y_1 .. y_t, y_{t+1}),   ..        inputs of what is written are zeros

A path is a function of the seed and its row's number alone: not of the rows beside it.
Shapes: N sequences, R rows of a batch, K paths of each, S steps, C channels, P predicted channels.
Source: Salinas et al., "DeepAR: probabilistic forecasting with autoregressive recurrent networks", 2017,
arXiv:1704.04110, section 3.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqloom.app import _scoring
from seqloom.core.layout import PLAIN, Layout
from seqloom.core.rng import torch_generator
from seqloom.core.state import State
from seqloom.core.steady import Steady
from seqloom.data.examples import Examples

COLUMNS = 1 << 17
"""Columns of all paths that are held at once: what attention remembers grows with them."""
FAR = 1e6
"""Standard deviations beyond which a path goes no further, so that a runaway one stays a number."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is sampled."""

    steps: int
    count: int = 1
    """Paths of each row."""
    temperature: float = 1.0
    """Distance from the middle of the distributions; 0 = the middle itself."""
    seed: int = 7
    first: int = 0
    """Number of the first row, for data that come in pieces."""


@torch.no_grad()
def sample_paths(model: Any, examples: Examples, wanted: Wanted, *, window: int) -> np.ndarray:
    """Further values of each sequence (N, K, S, P), scaled, float32."""
    sizes = model.sizes
    rows = _histories(examples, wanted.steps, window, sizes.channels)
    made_NKSP = np.zeros((len(rows), wanted.count, wanted.steps, sizes.values), np.float32)
    for group in _groups([len(row) for row in rows], wanted):
        lengths = [len(rows[at]) for at in group]
        given_RTC = torch.zeros(len(group), max(lengths), sizes.channels)
        for place, at in enumerate(group):
            given_RTC[place, : lengths[place]] = torch.from_numpy(rows[at])
        lengths_R = torch.tensor(lengths, device=model.device)
        state = model.initial_state(len(group), capacity=max(lengths) + wanted.steps)
        layout = PLAIN if min(lengths) == max(lengths) else Layout(lengths_B=lengths_R)
        outputs, state = model(None, state, layout=layout, values_BTC=given_RTC.to(model.device))
        row_R = torch.arange(len(group), device=model.device)
        first_RPK = outputs["distribution"][row_R, lengths_R - 1]
        share_RKSP = torch.stack([_shares(wanted, at, sizes.values) for at in group])
        most = max(1, COLUMNS // (len(group) * (max(lengths) + wanted.steps)))
        for begin in range(0, wanted.count, most):
            some_RKSP = share_RKSP[:, begin : begin + most].to(model.device)
            many_R = row_R.repeat_interleave(some_RKSP.shape[1])
            written = _written(model, state.select(many_R), first_RPK[many_R], some_RKSP.flatten(0, 1), wanted)
            made_NKSP[group, begin : begin + most] = written.view_as(some_RKSP).cpu().numpy()
    return made_NKSP


def _written(model: Any, state: State, parameters_RPK: Tensor, share_RSP: Tensor, wanted: Wanted) -> Tensor:
    """One path a row (R, S, P)."""
    written, sizes, steady = [], model.sizes, Steady()
    for step in range(wanted.steps):
        share_RP = share_RSP[:, step].to(parameters_RPK.dtype)
        middle_RP = model.head.quantile(parameters_RPK, torch.full_like(share_RP, 0.5))
        drawn_RP = middle_RP + wanted.temperature * (model.head.quantile(parameters_RPK, share_RP) - middle_RP)
        written.append(drawn_RP.clamp(-FAR, FAR))
        if step + 1 < wanted.steps:
            feed_R1C = drawn_RP.new_zeros(len(drawn_RP), 1, sizes.channels)
            feed_R1C[:, 0, : sizes.values], feed_R1C[:, 0, sizes.values] = written[-1], 1.0
            with steady:
                outputs, state = model(None, state, values_BTC=feed_R1C)
            parameters_RPK = outputs["distribution"][:, -1]
    return torch.stack(written, 1)


def _histories(examples: Examples, steps: int, window: int, channels: int) -> list[np.ndarray]:
    """What each sequence has seen: of a long one so much that its paths stay inside the window of the training."""
    last = max(window - steps, window // 2, 1) if window else 0
    rows = [row.values for row in _scoring.rows_of(examples)]
    return [row[-last:] if row is not None and len(row) else np.zeros((1, channels), np.float32) for row in rows]


def _groups(lengths: list[int], wanted: Wanted) -> Iterator[list[int]]:
    """Rows of like lengths together, as many as may be held with all their paths."""
    order = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    at = 0
    while at < len(order):
        most = max(1, COLUMNS // (wanted.count * (lengths[order[at]] + wanted.steps)))
        yield order[at : at + most]
        at += most


def _shares(wanted: Wanted, row: int, channels: int) -> Tensor:
    """Uniform random numbers (K, S, P) of one row."""
    rng = torch_generator(wanted.seed, "values", wanted.first + row)
    shape = (wanted.count, wanted.steps, channels)
    return torch.rand(shape, generator=rng, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)  # inside (0, 1) in float32, too
