"""A linear map of the last values to the next ones, through their moving average: one layer that networks must beat.

    x = the last K values minus the very last                 trend = moving average of x, rest = x - trend
    y_{t+h} = y_t + w_h trend + v_h rest + u_h y_t + b_h,     h = 1 .. H, each by ridge regression in closed form

One map a channel, shared over the series. A history shorter than K is filled with its first value. Beyond H the
forecasts go on from themselves, and the variances of the pieces add up.
Shapes: N sequences, L steps, W windows, K values looked at, H steps ahead, P predicted channels.
Source: Zeng et al., "Are transformers effective for time series forecasting?", 2022, arXiv:2205.13504, section 4:
DLinear, with NLinear's subtraction of the last value, which is an input of its own here.
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical._values import LEAST, ValueModel, first_steps, spread

TRIED, PULLS = (24, 96, 192), (1e-3, 0.3)
"""Values looked at and ridges that are tried where nobody names them."""
HELD_OUT = 0.2
"""Share of each training series, its end, on which they are chosen; then all of it is learnt from."""
FEW = 10
"""Windows without which a step ahead is not learnt."""
WINDOWS = 10_000
"""Most windows that are learnt from, evenly spread over the training part."""
BLOCK = 8192
"""Steps whose windows are written out at once."""


class Linear(ValueModel):
    """A linear autoregression with a map for every step ahead."""

    learnt = ("weight_PHK", "bias_PH", "scale_PH", "mean_P", "scale_first_P")

    @dataclass(frozen=True, kw_only=True)
    class Config(ValueModel.Config):
        """What is looked at, and how the map is held back."""

        lookback: int = 0
        """Last values that are looked at; 0 = chosen on the last fifth of each training series."""
        horizon: int = 24
        """Steps ahead that have a map of their own."""
        smoothing: int = 25
        """Values of the moving average, an odd number."""
        ridge: float | None = None
        """Pull of the weights towards 0, that is, to a random walk, a window; None = chosen there, too."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError for sizes that cannot be."""
        super().__init__(sizes, config)
        c = self.config
        if c.lookback < 0 or c.horizon < 1 or c.smoothing < 1 or c.smoothing % 2 == 0 or (c.ridge or 0) < 0:
            raise ConfigError(f"a linear model needs positive sizes and an odd moving average, not {c}")

    def _shape_of(self, name: str, found: np.ndarray) -> tuple[int, ...]:
        p, h = self.sizes.values, self.config.horizon
        if name == "weight_PHK":
            return (p, h, found.shape[-1] if found.ndim == 3 and found.shape[-1] else 1)
        return (p, h) if name.endswith("PH") else super()._shape_of(name, found)

    def _learn(self, own: Ragged, opens_N: np.ndarray, progress: Progress) -> None:
        self.mean_P = own.flat.mean(0) if own.total else np.zeros(self.sizes.values)
        self.scale_first_P = spread(own.flat - self.mean_P)
        longest, c = max(int(own.lengths.max(initial=0)) - 1, 1), self.config
        seen = [c.lookback] if c.lookback else sorted({min(size, longest) for size in TRIED})
        choices = [(size, ridge) for size in seen for ridge in (PULLS if c.ridge is None else (c.ridge,))]
        chosen = min(choices, key=lambda choice: self._error(own, *choice)) if len(choices) > 1 else choices[0]
        self.weight_PHK, self.bias_PH, self.scale_PH = self._fitted(own, *chosen)

    def _error(self, own: Ragged, seen: int, ridge: float) -> float:
        """Mean absolute error of all steps ahead on the last fifth of each series, learnt from what lies before it."""
        first_N = (own.lengths * (1 - HELD_OUT)).astype(np.int64)
        earlier = Ragged.of([y[:first] for y, first in zip(own, first_N, strict=True)], np.float64)
        weight_PHK, bias_PH, _ = self._fitted(earlier if earlier.total else own, seen, ridge)
        errors = []
        for channel in range(self.sizes.values):
            x_WK, y_WH = _problem(own, channel, seen, self.config.horizon, first_N)
            wrong_WH = np.abs(x_WK @ weight_PHK[channel].T + bias_PH[channel] - y_WH)
            errors.append(np.nanmean(wrong_WH) if wrong_WH.size else 0.0)
        return float(np.mean(errors))

    def _fitted(self, own: Ragged, seen: int, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights on the raw window (P, H, K), biases and scales (P, H)."""
        average_KK = _averaging(seen, self.config.smoothing)
        split_KF = np.concatenate([average_KK.T, np.eye(seen) - average_KK.T, np.eye(seen)[:, -1:]], 1)
        split_KF[-1, :-1] = 0  # the place of the last value less itself holds the value
        made = []
        for channel in range(self.sizes.values):
            x_WK, y_WH = _problem(own, channel, seen, self.config.horizon)
            weight_HF, bias_H, scale_H = _ridge(x_WK @ split_KF, y_WH, ridge)
            made.append((weight_HF @ split_KF.T, bias_H, scale_H))
        weight_PHK, bias_PH, scale_PH = (np.stack(parts) for parts in zip(*made, strict=True))
        return weight_PHK, bias_PH, scale_PH

    def _moments(self, own: Ragged) -> tuple[np.ndarray, np.ndarray]:
        first_L = first_steps(own)
        begin_L = np.repeat(own.offsets[:-1] - own.offsets[0], own.lengths)
        mean_LP = np.zeros((own.total, self.sizes.values))
        scale_LP = np.where(first_L[:, None], self.scale_first_P, self.scale_PH[:, 0])
        for at in range(0, own.total, BLOCK):
            step_W = np.arange(at, min(at + BLOCK, own.total)) - 1  # the step before is the last that is known
            for channel in range(self.sizes.values):
                flat_L, weight_K = own.flat[:, channel], self.weight_PHK[channel, 0]
                x_WK = _windows(flat_L, begin_L[step_W + 1], np.maximum(step_W, begin_L[step_W + 1]), len(weight_K))
                mean_LP[step_W + 1, channel] = flat_L[step_W] + x_WK @ weight_K + self.bias_PH[channel, 0]
        mean_LP[first_L] = self.mean_P
        return mean_LP, scale_LP

    def _ahead(self, own: Ragged, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        there_N, seen = own.lengths > 0, self.weight_PHK.shape[2]
        pieces = -(-horizon // self.config.horizon)
        rows = [np.concatenate([y[:1].repeat(max(seen - len(y), 0), 0), y[-seen:]]) for y in own if len(y)]
        known_NKP = np.stack(rows) if rows else np.zeros((0, seen, self.sizes.values))
        for _ in range(pieces):
            last_N1P = known_NKP[:, -1:]
            x_NKP = np.concatenate([known_NKP[:, -seen:-1] - last_N1P, last_N1P], 1)
            step_NHP = np.einsum("nkp,phk->nhp", x_NKP, self.weight_PHK, optimize=True)
            known_NKP = np.concatenate([known_NKP, last_N1P + step_NHP + self.bias_PH.T], 1)
        mean_NHP = np.broadcast_to(self.mean_P, (len(own), horizon, self.sizes.values)).copy()
        mean_NHP[there_N] = known_NKP[:, seen : seen + horizon]
        square_HP = self.scale_PH.T**2
        grown_HP = np.sqrt(np.concatenate([square_HP + piece * square_HP[-1] for piece in range(pieces)]))[:horizon]
        return mean_NHP, np.where(there_N[:, None, None], grown_HP, self.scale_first_P)


def _problem(
    own: Ragged, channel: int, seen: int, horizon: int, first_N: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Windows (W, K) of one channel, what came after them (W, H) less the last value; NaN behind the end.

    With ``first_N`` only windows that are followed by step ``first_N`` of their sequence or a later one.
    """
    begin_L = np.repeat(own.offsets[:-1] - own.offsets[0], own.lengths)
    end_L = np.repeat(own.offsets[1:] - own.offsets[0], own.lengths)
    next_L = np.arange(own.total) + 1
    least_L = begin_L if first_N is None else begin_L + np.repeat(first_N, own.lengths)
    step_W = np.flatnonzero((next_L < end_L) & (next_L >= least_L))
    step_W = step_W[:: max(1, -(-len(step_W) // WINDOWS))]
    flat_L = own.flat[:, channel]
    at_WH = step_W[:, None] + np.arange(1, horizon + 1)
    there_WH = at_WH < end_L[step_W][:, None]
    y_WH = np.where(there_WH, flat_L[np.where(there_WH, at_WH, 0)] - flat_L[step_W][:, None], np.nan)
    return _windows(flat_L, begin_L[step_W], step_W, seen), y_WH


def _windows(flat_L: np.ndarray, begin_W: np.ndarray, step_W: np.ndarray, seen: int) -> np.ndarray:
    """The values up to a step (W, K), less that of the step but for itself; the first stands for those before it."""
    at_WK = np.maximum(step_W[:, None] + np.arange(1 - seen, 0), begin_W[:, None])
    last_W1 = flat_L[step_W][:, None]
    return np.concatenate([flat_L[at_WK] - last_W1, last_W1], 1)


def _averaging(seen: int, width: int) -> np.ndarray:
    """The moving average as a matrix (K, K); beyond the ends the outer values stand."""
    average_KK = np.zeros((seen, seen))
    for shift in range(-(width // 2), width // 2 + 1):
        average_KK[np.arange(seen), np.clip(np.arange(seen) + shift, 0, seen - 1)] += 1 / width
    return average_KK


def _ridge(x_WF: np.ndarray, y_WH: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (H, F), biases and scales (H,) of a regression for every column, each over the rows that have it.

    Rows lack the steps behind the end of their series, so the columns are solved from the last to the first, and
    each takes over the sums of the one before.
    """
    there_WH, (features, horizon) = ~np.isnan(y_WH), (x_WF.shape[1], y_WH.shape[1])
    rows_H, count_W = there_WH.sum(0), there_WH.sum(1)
    known = int((rows_H >= FEW).sum())
    middle_H = np.where(there_WH, y_WH, 0).sum(0) / np.maximum(rows_H, 1)
    right_FH = x_WF.T @ np.where(there_WH, y_WH - middle_H, 0)
    weight_HF, bias_H, scale_H = np.zeros((horizon, features)), np.zeros(horizon), np.ones(horizon)
    square_FF, sum_F, above = np.zeros((features, features)), np.zeros(features), horizon + 1
    centred_FF, held_FF = square_FF, np.eye(features)
    for h in range(known - 1, -1, -1):
        new_WF = x_WF[(count_W > h) & (count_W < above)]
        square_FF, sum_F, above = square_FF + new_WF.T @ new_WF, sum_F + new_WF.sum(0), h + 1
        centred_FF = square_FF - np.outer(sum_F, sum_F) / rows_H[h]
        held_FF = centred_FF + (ridge * rows_H[h] + 1e-9 * max(np.trace(centred_FF) / features, 1)) * np.eye(features)
        weight_HF[h] = np.linalg.solve(held_FF, right_FH[:, h])
        bias_H[h] = middle_H[h] - sum_F @ weight_HF[h] / rows_H[h]
    if known:
        wrong_WH = np.where(there_WH, y_WH - x_WF @ weight_HF.T - bias_H, 0)[:, :known]
        # what the fit used up would be missing in the spread
        used = min(1 + float(np.trace(np.linalg.solve(held_FF, centred_FF))), 0.5 * rows_H[0])
        scale_H[:known] = np.sqrt(np.square(wrong_WH).sum(0) / rows_H[:known] * rows_H[0] / (rows_H[0] - used))
    return _continued(weight_HF, bias_H, scale_H, known)


def _continued(
    weight_HF: np.ndarray, bias_H: np.ndarray, scale_H: np.ndarray, known: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps that too few training series were long enough for stay at the last one that was learnt; the spread grows.

    Where none was learnt, it is a random walk.
    """
    for h in range(known, len(bias_H)):
        if known:
            weight_HF[h], bias_H[h] = weight_HF[known - 1], bias_H[known - 1]
        scale_H[h] = scale_H[max(known - 1, 0)] * np.sqrt((h + 1) / max(known, 1))
    return weight_HF, bias_H, np.maximum(scale_H, LEAST)
