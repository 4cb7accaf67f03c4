"""A linear map of the last values to the next ones, through their moving average: one layer that networks must beat.

    x = the last K values minus the very last        trend = moving average of x, rest = x - trend
    y_{t+h} = y_t + w_h trend + v_h rest + b_h,      h = 1 .. H, each by ridge regression in closed form

One map a channel, shared over the series. A history shorter than K is filled with its first value. Beyond H the
forecasts go on from themselves, and the variances of the pieces add up.
Shapes: N sequences, L steps, W windows, K values looked at, H steps ahead, P predicted channels.
Source: Zeng et al., "Are transformers effective for time series forecasting?", 2022, arXiv:2205.13504, section 4:
DLinear, with NLinear's subtraction of the last value.
"""

from dataclasses import dataclass

import numpy as np

from seqloom.core.errors import ConfigError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical._values import LEAST, ValueModel, first_steps, spread

USUAL, TRIED = 96, (24, 96, 192)
"""Values looked at where nothing says how many, and what is tried on the validation part."""
WINDOWS = 20_000
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
        """Last values that are looked at; 0 = chosen on the validation part."""
        horizon: int = 24
        """Steps ahead that have a map of their own."""
        smoothing: int = 25
        """Values of the moving average, an odd number."""
        ridge: float = 1e-3
        """Pull of the weights towards 0, that is, to a random walk; relative to the number of windows."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError for sizes that cannot be."""
        super().__init__(sizes, config)
        c = self.config
        if c.lookback < 0 or c.horizon < 1 or c.smoothing < 1 or c.smoothing % 2 == 0 or c.ridge < 0:
            raise ConfigError(f"a linear model needs positive sizes and an odd moving average, not {c}")

    def _shape_of(self, name: str, found: np.ndarray) -> tuple[int, ...]:
        p, h = self.sizes.values, self.config.horizon
        if name == "weight_PHK":
            return (p, h, found.shape[-1] if found.ndim == 3 and found.shape[-1] else 1)
        return (p, h) if name.endswith("PH") else super()._shape_of(name, found)

    def _learn(self, own: Ragged, valid: Ragged | None, opens_N: np.ndarray, progress: Progress) -> None:
        self.mean_P = own.flat.mean(0) if own.total else np.zeros(self.sizes.values)
        self.scale_first_P = spread(own.flat - self.mean_P)
        longest = max(int(own.lengths.max(initial=0)) - 1, 1)
        seen = self.config.lookback or min(USUAL, longest)
        if valid is not None and not self.config.lookback and (valid.lengths > 1).any():
            seen = min(sorted({min(size, longest) for size in TRIED}), key=lambda size: self._error(own, valid, size))
        self.weight_PHK, self.bias_PH, self.scale_PH = self._fitted(own, seen)

    def _error(self, own: Ragged, valid: Ragged, seen: int) -> float:
        """Mean absolute error of all steps ahead on the validation part, over the channels."""
        weight_PHK, bias_PH, _ = self._fitted(own, seen)
        errors = []
        for channel in range(self.sizes.values):
            x_WK, y_WH = _problem(valid, channel, seen, self.config.horizon)
            errors.append(np.nanmean(np.abs(x_WK @ weight_PHK[channel].T + bias_PH[channel] - y_WH)))
        return float(np.mean(errors))

    def _fitted(self, own: Ragged, seen: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights on the raw window (P, H, K), biases and scales (P, H)."""
        average_KK = _averaging(seen, self.config.smoothing)
        split_KF = np.concatenate([average_KK.T, np.eye(seen) - average_KK.T], 1)
        made = []
        for channel in range(self.sizes.values):
            x_WK, y_WH = _problem(own, channel, seen, self.config.horizon)
            weight_HF, bias_H, scale_H = _ridge(x_WK @ split_KF, y_WH, self.config.ridge)
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
            step_NHP = np.einsum("nkp,phk->nhp", known_NKP[:, -seen:] - last_N1P, self.weight_PHK, optimize=True)
            known_NKP = np.concatenate([known_NKP, last_N1P + step_NHP + self.bias_PH.T], 1)
        mean_NHP = np.broadcast_to(self.mean_P, (len(own), horizon, self.sizes.values)).copy()
        mean_NHP[there_N] = known_NKP[:, seen : seen + horizon]
        square_HP = self.scale_PH.T**2
        grown_HP = np.sqrt(np.concatenate([square_HP + piece * square_HP[-1] for piece in range(pieces)]))[:horizon]
        return mean_NHP, np.where(there_N[:, None, None], grown_HP, self.scale_first_P)


def _problem(own: Ragged, channel: int, seen: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (W, K) of one channel and what came after them (W, H), both less the last value; NaN behind the end."""
    begin_L = np.repeat(own.offsets[:-1] - own.offsets[0], own.lengths)
    end_L = np.repeat(own.offsets[1:] - own.offsets[0], own.lengths)
    step_W = np.flatnonzero(np.arange(own.total) + 1 < end_L)
    step_W = step_W[:: max(1, -(-len(step_W) // WINDOWS))]
    flat_L = own.flat[:, channel]
    at_WH = step_W[:, None] + np.arange(1, horizon + 1)
    there_WH = at_WH < end_L[step_W][:, None]
    y_WH = np.where(there_WH, flat_L[np.where(there_WH, at_WH, 0)] - flat_L[step_W][:, None], np.nan)
    return _windows(flat_L, begin_L[step_W], step_W, seen), y_WH


def _windows(flat_L: np.ndarray, begin_W: np.ndarray, step_W: np.ndarray, seen: int) -> np.ndarray:
    """The last values up to a step (W, K) less that of the step; the first one stands for those before it."""
    at_WK = np.maximum(step_W[:, None] + np.arange(1 - seen, 1), begin_W[:, None])
    return flat_L[at_WK] - flat_L[step_W][:, None]


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
    count_W, (features, horizon) = (~np.isnan(y_WH)).sum(1), (x_WF.shape[1], y_WH.shape[1])
    square_FF, sum_F, rows = np.zeros((features, features)), np.zeros(features), 0
    weight_HF, bias_H, scale_H = np.zeros((horizon, features)), np.zeros(horizon), np.ones(horizon)
    for h in range(horizon - 1, -1, -1):
        new_WF = x_WF[count_W >= h + 1] if rows == 0 else x_WF[count_W == h + 1]
        square_FF, sum_F, rows = square_FF + new_WF.T @ new_WF, sum_F + new_WF.sum(0), rows + len(new_WF)
        if not rows:
            continue
        has_W = count_W > h
        y_W, middle_F = y_WH[has_W, h], sum_F / rows
        centred_FF = square_FF - rows * np.outer(middle_F, middle_F)
        held_FF = centred_FF + (ridge * rows + 1e-9 * max(np.trace(centred_FF) / features, 1.0)) * np.eye(features)
        weight_HF[h] = np.linalg.solve(held_FF, x_WF[has_W].T @ (y_W - y_W.mean()))
        bias_H[h] = y_W.mean() - middle_F @ weight_HF[h]
        wrong_W = y_W - x_WF[has_W] @ weight_HF[h] - bias_H[h]
        freedom = features - np.trace(np.linalg.solve(held_FF, held_FF - centred_FF)) if h == 0 else 0.0
        scale_H[h] = np.sqrt(np.square(wrong_W).mean())
    used = min(freedom + 1, 0.5 * rows)  # what the fit used up would be missing in the spread
    scale_H *= np.sqrt(rows / max(rows - used, 1)) if rows else 1.0
    return _continued(weight_HF, bias_H, np.maximum(scale_H, LEAST), int(count_W.max(initial=0)))


def _continued(
    weight_HF: np.ndarray, bias_H: np.ndarray, scale_H: np.ndarray, known: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps that no training series was long enough for stay at the last one that was learnt; the spread grows."""
    for h in range(known, len(bias_H)):
        if known:
            weight_HF[h], bias_H[h] = weight_HF[known - 1], bias_H[known - 1]
            scale_H[h] = scale_H[known - 1] * np.sqrt((h + 1) / known)
    return weight_HF, bias_H, scale_H
