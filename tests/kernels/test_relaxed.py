import pytest
import torch
from torch.testing import assert_close

from seqloom.kernels.long_conv import relaxed
from seqloom.kernels.long_conv.relaxed import NEAR, Taps, relaxed_step, relaxed_step_rows


def by_sums(u_TD, k_DL):
    """y_t = sum_l k_l u_{t-l}, one sum an output."""
    rows = []
    for t in range(len(u_TD)):
        L = min(t + 1, k_DL.shape[1])
        rows.append((k_DL[:, :L].T * u_TD[t - L + 1 : t + 1].flip(0)).sum(0))
    return torch.stack(rows)


@pytest.mark.parametrize("slots", [1, NEAR - 1, NEAR, NEAR + 1, 8 * NEAR, 8 * NEAR + 37, 523])
def test_steps_equal_the_sums(slots):
    u_BTD, k_DL = torch.randn(2, slots, 3).double(), torch.randn(3, slots).double()
    line_BLD, taps = torch.zeros(2, slots, 3).double(), Taps(k_DL)
    y_BTD = torch.stack([relaxed_step(line_BLD, u_BTD[:, t], taps, t, t) for t in range(slots)], 1)
    for b in range(2):
        assert_close(y_BTD[b], by_sums(u_BTD[b], k_DL), rtol=1e-12, atol=1e-12)
    assert torch.equal(line_BLD, u_BTD)


@pytest.mark.parametrize("first", [1, 5, 100])
def test_steps_after_a_prefix_whose_sums_are_complete(first):
    """Blocks are counted from there on, not from the beginning of the row."""
    T = 5 * NEAR + 3
    u_TD, k_DL = torch.randn(first + T, 3).double(), torch.randn(3, first + T).double()
    zeros_TD = torch.cat([u_TD[:first], torch.zeros(T, 3).double()])
    line_BLD = torch.cat([u_TD[:first], by_sums(zeros_TD, k_DL)[first:]])[None].clone()
    taps = Taps(k_DL)
    y_TD = torch.cat([relaxed_step(line_BLD, u_TD[None, first + t], taps, first + t, t) for t in range(T)])
    assert_close(y_TD, by_sums(u_TD, k_DL)[first:], rtol=1e-12, atol=1e-12)


def test_rows_at_different_positions():
    before, T, slots = [40, 3, 0], 4 * NEAR, 40 + 4 * NEAR
    k_DL, lines, wants, inputs = torch.randn(2, slots).double(), [], [], []
    for first in before:
        u_TD = torch.randn(first + T, 2).double()
        rest_TD = torch.zeros(slots - first, 2).double()
        sums_TD = by_sums(torch.cat([u_TD[:first], rest_TD]), k_DL)
        lines.append(torch.cat([u_TD[:first], sums_TD[first:]]))
        wants.append(by_sums(u_TD, k_DL)[first:])
        inputs.append(u_TD[first:])
    line_BLD, at_B, u_BTD, taps = torch.stack(lines), torch.tensor(before), torch.stack(inputs), Taps(k_DL)
    rows = [relaxed_step_rows(line_BLD, u_BTD[:, t], taps, at_B + t, t, 40 + t) for t in range(T)]
    assert_close(torch.stack(rows, 1), torch.stack(wants), rtol=1e-12, atol=1e-12)


def test_a_step_is_a_few_short_transforms(monkeypatch):
    """Numbers transformed in all: T log2(T) / log2 blocks of twice their size, not T^2."""
    T, seen = 4096, []
    real = torch.fft.rfft
    monkeypatch.setattr(relaxed.torch.fft, "rfft", lambda x, n: seen.append(n) or real(x, n))
    line_BLD, taps = torch.zeros(1, T, 1), Taps(torch.randn(1, T))
    for t in range(T):
        relaxed_step(line_BLD, torch.randn(1, 1), taps, t, t)
    levels = (T // NEAR).bit_length() - 1
    assert sum(seen) <= 2 * T * levels / 2 + 8 * T  # each level once over the inputs, and the spectra of the taps
    assert max(n for n in taps.spectra) <= relaxed.KEPT
