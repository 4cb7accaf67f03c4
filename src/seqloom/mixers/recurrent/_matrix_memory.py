"""The mLSTM's memory beside the kernel: one step of it, and both directions with one normaliser.

    step   m' = max(log f + m, log i)    C' = e^{log f + m - m'} C + e^{log i - m'} k v^T    n' likewise with k alone
           h = C'^T q / max(|n'^T q|, e^{-m'})

    both   h_t = sum_j D_tj (q_t k_j) v_j / max(|sum_j D_tj (q_t k_j)|, 1)
           log D_tj = log i_j + sum of log f over j+1..t where j <= t, over t..j-1 where j > t

Both directions are two recurrences: the past with the position itself, and strictly what follows,
B_t = f_t (B_{t+1} + i_{t+1} k_{t+1} v_{t+1}^T), which is the same recurrence on the flipped row with keys, values and
gates one position late. m is a gauge: whatever it is, e^m C is the same, so it is a constant to the gradient.

Shapes: B batch, T time, H heads, K key width, V value width, W = V + 1 (the last column is the normaliser).
Source: Beck et al., "xLSTM", 2024, arXiv:2405.04517, section 2.3 and appendix A; both directions: Schmidinger et al.,
"Bio-xLSTM", 2024, arXiv:2411.04165, section 3.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.kernels.decay_attention import decay_attention


def step(
    qkv: tuple[Tensor, Tensor, Tensor], gates: tuple[Tensor, Tensor], memory: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Outputs of one position (B, 1, H, V) and the memory after it.

    Args:
        qkv: queries, keys and values, T = 1.
        gates: log forget and log input gates (B, 1, H).
        memory: C, n and m.
    """
    q_BHK, k_BHK, v_BHV = (x_BTHK[:, 0] for x_BTHK in qkv)
    (log_f_BH, log_i_BH), (c_BHKV, n_BHK, m_BH) = (gate_BTH[:, 0] for gate_BTH in gates), memory
    after_BH = torch.maximum(log_f_BH + m_BH, log_i_BH).detach()  # a gauge: C and n carry all of the gradient
    keep_BH1, let_BH1 = (log_f_BH + m_BH - after_BH).exp()[..., None], (log_i_BH - after_BH).exp()[..., None]
    new_BHK = let_BH1 * k_BHK
    c_BHKV = keep_BH1[..., None] * c_BHKV + new_BHK[..., None] * v_BHV[..., None, :]
    n_BHK = keep_BH1 * n_BHK + new_BHK
    sum_BHV, weight_BH = (q_BHK[..., None, :] @ c_BHKV)[..., 0, :], (q_BHK * n_BHK).sum(-1)
    h_BHV = normalised(sum_BHV, weight_BH, after_BH)
    return h_BHV[:, None], c_BHKV, n_BHK, after_BH


def normalised(sum_V: Tensor, weight: Tensor, m: Tensor) -> Tensor:
    """Weighted sums over their weights, which count as 1 where they are less; all scaled by e^{-m}."""
    least = (-m).exp().clamp_min(torch.finfo(m.dtype).tiny)  # e^{-m} rounds to 0 beyond m = 104 in float32
    return sum_V / torch.maximum(weight.abs(), least)[..., None]


def both_ways(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, log_f_BTH: Tensor, log_i_BTH: Tensor) -> Tensor:
    """Outputs that see the whole row; pads have log f = 0 and log i = -inf."""
    late = (pad(x.flip(1)[:, :-1], (*[0] * (2 * (x.ndim - 2)), 1, 0)) for x in (k_BTHK, v_BTHV))
    back_f_BTH = log_f_BTH.flip(1)
    late_i_BTH = pad(log_i_BTH.flip(1)[:, :-1], (0, 0, 1, 0), value=-torch.inf) + back_f_BTH
    pairs = ((q_BTHK, q_BTHK.flip(1)), (k_BTHK, next(late)), (v_BTHV, next(late)))
    q, k, v = (torch.cat(pair) for pair in pairs)
    log_f, log_i = torch.cat([log_f_BTH, back_f_BTH]), torch.cat([log_i_BTH, late_i_BTH])
    m = _gauge(log_f, log_i)
    decay = (log_f + pad(m[:, :-1], (0, 0, 1, 0)) - m)[..., None]
    zeros = q.new_zeros(len(q), q.shape[2], q.shape[3], v.shape[3] + 1)
    y, _ = decay_attention(q, k * (log_i - m).exp()[..., None], pad(v, (0, 1), value=1.0), decay, zeros)
    (past, follow), (m_past, m_follow) = y.chunk(2), m.chunk(2)
    follow, m_follow = follow.flip(1), m_follow.flip(1)
    both = torch.maximum(m_past, m_follow)
    y_BTHW = past * (m_past - both).exp()[..., None] + follow * (m_follow - both).exp()[..., None]
    return normalised(y_BTHW[..., :-1], y_BTHW[..., -1], both)


def _gauge(log_f_BTH: Tensor, log_i_BTH: Tensor) -> Tensor:
    """m_t = max(log f_t + m_{t-1}, log i_t, 0) of all positions, m_{-1} = 0; a constant to the gradient.

    At least 0, because weights below 1 are not divided by: e^{-m} never overflows. Its sums are float64; what m is
    does not matter, but decays must not exceed one.
    """
    with torch.no_grad():
        f_BTH = log_f_BTH.double().cumsum(1)
        m_BTH = f_BTH + (log_i_BTH.double().clamp_min(0) - f_BTH).cummax(1).values.clamp_min(0)
        return m_BTH.to(log_f_BTH.dtype)
