"""A long convolution whose inputs come one at a time: O(log^2 t) operations a channel and step instead of O(t).

    y_t = sum_{l <= t} k_l u_{t-l}

One line of slots a row holds the inputs so far and, behind them, what later outputs already have of their sums. After r
inputs since that was last complete, the last p = (lowest set bit of r) inputs are convolved with taps 1 .. 2p - 1 and
added to the next p slots, by one transform of length 2p: each pair of an input and a later output is met exactly once.
Blocks below ``NEAR`` inputs are no transforms: a step takes a dot product with the inputs that no block has met yet.

Shapes: B batch, T time, D channels, L slots, p inputs of a block, F = p + 1 frequencies.
Source: van der Hoeven, "Lazy multiplication of formal power series", ISSAC 1997 (relaxed multiplication); Oncescu et
al., "Flash inference: near linear time inference for long convolution sequence models and beyond", 2024,
arXiv:2410.14706, section 3 (the tiling, one buffer for inputs and sums).
"""

from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

NEAR = 32
"""Inputs that are met by a dot product; a power of two."""
KEPT = 1024
"""Blocks up to so many inputs keep the spectrum of their taps: longer ones are too rare to be worth the memory."""


class Taps:
    """A causal kernel and the spectra of its blocks, made once for all steps."""

    def __init__(self, k_DL: Tensor) -> None:
        """``k_DL``: taps 0 .. L - 1; there are none beyond."""
        self.k_DL = k_DL
        self.spectra: dict[int, Tensor] = {}

    @cached_property
    def near_MD(self) -> Tensor:
        """The first taps, tap 0 last."""
        return pad(self.k_DL[:, :NEAR], (0, max(NEAR - self.k_DL.shape[1], 0))).flip(1).T.contiguous()

    def spectrum(self, p: int) -> Tensor:
        """Transform of the first 2p taps (D, F)."""
        found = self.spectra.get(p)
        if found is None:
            found = torch.fft.rfft(self.k_DL[:, : 2 * p], 2 * p)
            if p <= KEPT:
                self.spectra[p] = found
        return found


def relaxed_step(line_BLD: Tensor, u_BD: Tensor, taps: Taps, at: int, since: int) -> Tensor:
    """Output of one more input, slot ``at`` of every row; writes into the line.

    Args:
        line_BLD: inputs before ``at``, sums at and behind it.
        u_BD: the inputs.
        taps: the kernel; taps that it lacks are zero.
        at: position of the input.
        since: inputs since the sums were complete.
    """
    m = since % NEAR + 1
    y_BD = line_BLD[:, at].clone()
    line_BLD[:, at] = u_BD
    y_BD += (line_BLD[:, at + 1 - m : at + 1] * taps.near_MD[NEAR - m :]).sum(1)
    p = _block(since)
    size = min(p, line_BLD.shape[1] - at - 1)
    if size:
        line_BLD[:, at + 1 : at + 1 + size] += _ahead(line_BLD[:, at + 1 - p : at + 1], taps, p)[:, :size]
    return y_BD


def relaxed_step_rows(line_BLD: Tensor, u_BD: Tensor, taps: Taps, at_B: Tensor, since: int, most: int) -> Tensor:
    """``relaxed_step`` for rows at different positions ``at_B``, none of them beyond ``most``."""
    rows_B1 = torch.arange(len(line_BLD), device=line_BLD.device)[:, None]
    m = since % NEAR + 1
    y_BD = line_BLD[rows_B1[:, 0], at_B]
    line_BLD[rows_B1[:, 0], at_B] = u_BD
    seen_BmD = line_BLD[rows_B1, at_B[:, None] + torch.arange(1 - m, 1, device=at_B.device)]
    y_BD += (seen_BmD * taps.near_MD[NEAR - m :]).sum(1)
    p = _block(since)
    size = min(p, line_BLD.shape[1] - most - 1)  # beyond the longest row's last slot the line is made anew
    if size:
        block_BpD = line_BLD[rows_B1, at_B[:, None] + torch.arange(1 - p, 1, device=at_B.device)]
        slots_Bp = at_B[:, None] + torch.arange(1, size + 1, device=at_B.device)
        line_BLD[rows_B1, slots_Bp] += _ahead(block_BpD, taps, p)[:, :size]
    return y_BD


def _block(since: int) -> int:
    """Inputs of the block that the next input completes; 0 = none that is worth a transform."""
    count = since + 1
    return 0 if count % NEAR else count & -count


def _ahead(block_BpD: Tensor, taps: Taps, p: int) -> Tensor:
    """What p inputs add to the p outputs behind them (B, p, D).

    A circle of 2p is enough: what wraps around falls on the first p places, which are not read.
    """
    block_BDF = torch.fft.rfft(block_BpD.transpose(1, 2), 2 * p)
    return torch.fft.irfft(block_BDF * taps.spectrum(p), 2 * p)[..., p:].transpose(1, 2)
