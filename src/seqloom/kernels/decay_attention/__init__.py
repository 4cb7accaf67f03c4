"""Linear attention whose memory decays: the one recurrence of SSD (Mamba-2), retention, GLA and the mLSTM cell.

    S_t = diag(exp(log_decay_t)) S_{t-1} + k_t v_t^T          y_t = S_t^T q_t

The decay is one number a head (C = 1) or one a key channel (C = K), and never above 1: log_decay <= 0. A position with
k = 0 and log_decay = 0 is a pad and holds the state. Nothing scales q.

``normalised_decay_attention`` is the mLSTM cell: an input gate exp(log_input) beside the decay, a normaliser n, and a
stabiliser m, so that gates of any size overflow nowhere.

Shapes: B batch, T time, H heads of values, G groups of heads that share queries and keys, K key, V value,
C decays a head (1 or K).
Source: Dao and Gu, "Transformers are SSMs", 2024, arXiv:2405.21060, section 6; Yang et al., "Gated linear attention
transformers with hardware-efficient training", 2023, arXiv:2312.06635, section 4; Beck et al., "xLSTM", 2024,
arXiv:2405.04517, section 2.3 and appendix A.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel
from seqloom.kernels.decay_attention._cases import forward_cases
from seqloom.kernels.decay_attention._gauge import gauge


@kernel
def decay_attention(
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHC: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the outputs, in the dtype of ``v_BTHV``, and the last state, in float32 or wider.

    This body is the meaning; backends only go faster. Half precision is computed in float32.

    Args:
        q_BTGK: queries; head h reads group h // (H / G).
        k_BTGK: keys, grouped alike.
        v_BTHV: values.
        log_decay_BTHC: logarithms of the decays, C = 1 or K; (1, 1, H, C) where they are constant.
        s_BHKV: state before the first column.
        segments_BT: number of each position's segment, from 0 for what continues ``s_BHKV``; None = one segment.
    """
    wrong = mismatch(q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV, segments_BT)
    if wrong is not None:
        raise ConfigError(f"decay_attention: {wrong}")
    wide = widest(q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV)
    q_TBHK, k_TBHK, v_TBHV, decay_TBHC = _steps(wide, q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, segments_BT)
    state_BHKV, outputs = s_BHKV.to(wide), []
    for q_BHK, k_BHK, v_BHV, decay_BHC in zip(q_TBHK, k_TBHK, v_TBHV, decay_TBHC, strict=True):
        state_BHKV = decay_BHC[..., None] * state_BHKV + k_BHK[..., None] * v_BHV[..., None, :]
        outputs.append((q_BHK[..., None] * state_BHKV).sum(2))
    y_BTHV = torch.stack(outputs, 1).to(v_BTHV.dtype) if outputs else v_BTHV.new_empty(v_BTHV.shape)
    return y_BTHV, state_BHKV.to(_state_dtype(s_BHKV)).clone(memory_format=torch.contiguous_format)


@decay_attention.shapes
def shapes(
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHC: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    return v_BTHV.new_empty(v_BTHV.shape), s_BHKV.new_empty(s_BHKV.shape, dtype=_state_dtype(s_BHKV))


@decay_attention.vjp(outputs=())
def backward(grads: tuple[Tensor, ...], inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Keep the inputs alone: the states are computed again."""
    return (*decay_attention_backward(*grads, *inputs), None)


@decay_attention.cost
def cost(
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHC: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
) -> Cost:
    """A step adds one outer product to the state and reads it once."""
    given = (q_BTGK, k_BTGK, v_BTHV, v_BTHV, log_decay_BTHC, s_BHKV, s_BHKV)
    return Cost(2 * v_BTHV.numel() * q_BTGK.shape[3], sum(value.nbytes for value in given))


@decay_attention.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    """Smallest first, odd sizes, one step, no step, groups, both kinds of decay, constant ones, segments."""
    yield from forward_cases(rng, dtype)


@kernel
def decay_attention_backward(
    dy_BTHV: Tensor,
    dlast_BHKV: Tensor,
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHC: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, log_decay and s. The adjoint of the state is the same recurrence run the other way.

    Its second order is that of this body.
    """
    wide = widest(q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV)
    q, k, v, decay = _steps(wide, q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, segments_BT)
    states = [s_BHKV.to(wide)]
    for k_BHK, v_BHV, decay_BHC in zip(k, v, decay, strict=True):
        states.append(decay_BHC[..., None] * states[-1] + k_BHK[..., None] * v_BHV[..., None, :])
    after_BHKV, dy, (B, T, H, _) = dlast_BHKV.to(wide), dy_BTHV.to(wide).unbind(1), v_BTHV.shape
    dq, dk, dv, ddecay = [], [], [], []
    for t in reversed(range(T)):
        after_BHKV = after_BHKV + q[t][..., None] * dy[t][..., None, :]
        dq.append((states[t + 1] * dy[t][..., None, :]).sum(3))
        dk.append((after_BHKV * v[t][..., None, :]).sum(3))
        dv.append((after_BHKV * k[t][..., None]).sum(2))
        after_BHKV = decay[t][..., None] * after_BHKV
        dlog_BHK = (after_BHKV * states[t]).sum(3)
        ddecay.append(dlog_BHK if log_decay_BTHC.shape[3] > 1 else dlog_BHK.sum(2, keepdim=True))
    shapes = ((*q_BTGK.shape[:2], H, q_BTGK.shape[3]),) * 2 + (v_BTHV.shape, (B, T, *log_decay_BTHC.shape[2:]))
    dq, dk, dv, ddecay = (
        torch.stack(rows[::-1], 1) if rows else v_BTHV.new_zeros(shape, dtype=wide)
        for rows, shape in zip((dq, dk, dv, ddecay), shapes, strict=True)
    )
    ds_BHKV = after_BHKV.to(s_BHKV.dtype).clone(memory_format=torch.contiguous_format)
    return (
        gathered(dq, q_BTGK).to(q_BTGK.dtype),
        gathered(dk, k_BTGK).to(k_BTGK.dtype),
        dv.to(v_BTHV.dtype),
        summed(ddecay, log_decay_BTHC).to(log_decay_BTHC.dtype),
        ds_BHKV,
    )


@decay_attention_backward.shapes
def backward_shapes(dy_BTHV: Tensor, dlast_BHKV: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(value.new_empty(value.shape) for value in inputs[:5])


@decay_attention_backward.cost
def backward_cost(dy_BTHV: Tensor, dlast_BHKV: Tensor, *inputs: Any) -> Cost:
    """The states and their adjoints again, and three products to read them."""
    given = (dy_BTHV, dlast_BHKV, *inputs[:5], *inputs[:5])
    return Cost(5 * dy_BTHV.numel() * inputs[0].shape[3], sum(value.nbytes for value in given))


@decay_attention_backward.cases
def backward_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    """Adjoints of the forward's own cases."""
    for case in examples(rng, dtype):
        dy_BTHV, dlast_BHKV = (torch.randn(case[at].shape, generator=rng, dtype=dtype) for at in (2, 4))
        yield dy_BTHV, dlast_BHKV, *case


def normalised_decay_attention(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    log_input_BTH: Tensor,
    c_BHKV: Tensor,
    n_BHK: Tensor,
    m_BH: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the outputs of the mLSTM cell and its last state (c, n, m), in float32 or wider.

        m_t = max(log_decay_t + m_{t-1}, log_input_t)
        (C_t, n_t) = e^(log_decay_t + m_{t-1} - m_t) (C_{t-1}, n_{t-1}) + e^(log_input_t - m_t) k_t (v_t, 1)^T
        h_t = C_t^T q_t / max(|n_t^T q_t|, e^(-m_t))

    It is ``decay_attention`` with one more value channel, 1, whose state is n. m only fixes the unit in which C and n
    are written: h does not depend on it, and no gradient of h flows through it. A fresh state is zeros, m too.

    Nine arguments, as the state of the cell is three tensors and kernels take tensors alone.

    Args:
        q_BTHK: queries.
        k_BTHK: keys, scaled by the caller.
        v_BTHV: values.
        log_decay_BTH: logarithms of the forget gates, finite.
        log_input_BTH: logarithms of the input gates; -inf, with log_decay 0, is a pad and holds the state.
        c_BHKV: memory before the first column, in units of e^m.
        n_BHK: normaliser, likewise.
        m_BH: stabiliser; -inf is read as 0.
        segments_BT: as in ``decay_attention``.
    """
    given = (q_BTHK, k_BTHK, v_BTHV, log_decay_BTH[..., None], c_BHKV, segments_BT)
    wrong = mismatch(*given) or _gates_mismatch(v_BTHV, k_BTHK, log_decay_BTH, log_input_BTH, n_BHK, m_BH)
    if wrong is not None:
        raise ConfigError(f"normalised_decay_attention: {wrong}")
    wide = widest(*given[:5], log_input_BTH, n_BHK, m_BH)
    fixed = gauge(log_decay_BTH, log_input_BTH, m_BH, starts(segments_BT))
    k_BTHK = (k_BTHK * fixed.log_input_BTH.exp().to(wide)[..., None]).to(k_BTHK.dtype)
    state_BHKV = torch.cat([c_BHKV.to(wide), n_BHK[..., None].to(wide)], 3)
    state_BHKV = state_BHKV * fixed.first_BH.exp().to(wide)[..., None, None]
    value_BTHV = torch.cat([v_BTHV, torch.ones_like(v_BTHV[..., :1])], 3)
    log_decay_BTH1 = fixed.log_decay_BTH.to(wide)[..., None]
    y_BTHV, state_BHKV = decay_attention(q_BTHK, k_BTHK, value_BTHV, log_decay_BTH1, state_BHKV, segments_BT)
    y_BTHV = y_BTHV.to(wide)
    bound_BTH1 = (-fixed.m_BTH).exp().to(wide)[..., None]
    h_BTHV = y_BTHV[..., :-1] / torch.maximum(y_BTHV[..., -1:].abs(), bound_BTH1)
    state_BHKV = state_BHKV * fixed.last_BH.exp().to(wide)[..., None, None]
    c_BHKV, n_BHK = state_BHKV[..., :-1].contiguous(), state_BHKV[..., -1].contiguous()
    return h_BTHV.to(v_BTHV.dtype), c_BHKV, n_BHK, fixed.m_BH.to(_state_dtype(m_BH))


def mismatch(
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHC: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
) -> str | None:
    """What is wrong with the shapes; None where they fit."""
    if any(value.ndim != 4 for value in (q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV)):
        return "queries, keys, values, decays and state have four axes each"
    (B, T, G, K), (H, V) = q_BTGK.shape, v_BTHV.shape[2:]
    if k_BTGK.shape != q_BTGK.shape or v_BTHV.shape[:2] != (B, T):
        return f"q {tuple(q_BTGK.shape)}, k {tuple(k_BTGK.shape)} and v {tuple(v_BTHV.shape)} do not fit"
    if not G or H % G:
        return f"{G} groups of queries and keys do not divide {H} heads"
    if log_decay_BTHC.shape[:2] not in ((B, T), (1, 1)) or log_decay_BTHC.shape[2:] not in ((H, 1), (H, K)):
        return f"log_decay {tuple(log_decay_BTHC.shape)} is neither ({B}, {T}) nor (1, 1) by ({H}, 1) or ({H}, {K})"
    if s_BHKV.shape != (B, H, K, V):
        return f"the state {tuple(s_BHKV.shape)} is not ({B}, {H}, {K}, {V})"
    if segments_BT is not None and segments_BT.shape != (B, T):
        return f"the segments {tuple(segments_BT.shape)} are not ({B}, {T})"
    return None


def _gates_mismatch(v: Tensor, k: Tensor, log_decay: Tensor, log_input: Tensor, n: Tensor, m: Tensor) -> str | None:
    B, T, H, _ = v.shape
    wanted = {"k": (k, (B, T, H, k.shape[3])), "log_decay": (log_decay, (B, T, H)), "log_input": (log_input, (B, T, H))}
    wanted |= {"n": (n, (B, H, k.shape[3])), "m": (m, (B, H))}
    return next(
        (f"{name} {tuple(x.shape)} is not {shape}" for name, (x, shape) in wanted.items() if x.shape != shape), None
    )


def starts(segments_BT: Tensor | None) -> Tensor | None:
    """True where a position does not see what came before; None where nothing is forgotten."""
    if segments_BT is None:
        return None
    before_BT = torch.cat([torch.zeros_like(segments_BT[:, :1]), segments_BT[:, :-1]], 1)
    return segments_BT != before_BT[:, : segments_BT.shape[1]]


def widest(*tensors: Tensor) -> torch.dtype:
    """The dtype of the arithmetic: float32, or float64 where an input is."""
    return torch.float64 if any(value.dtype == torch.float64 for value in tensors) else torch.float32


def gathered(dq_BTHK: Tensor, q_BTGK: Tensor) -> Tensor:
    """Sum over the heads of a group."""
    G = q_BTGK.shape[2]
    return dq_BTHK if dq_BTHK.shape[2] == G else dq_BTHK.unflatten(2, (G, -1)).sum(3)


def summed(ddecay_BTHC: Tensor, log_decay_BTHC: Tensor) -> Tensor:
    """Sum over positions where the decay is constant."""
    constant = log_decay_BTHC.shape[:2] != ddecay_BTHC.shape[:2]
    return ddecay_BTHC.sum((0, 1), keepdim=True) if constant else ddecay_BTHC


def _state_dtype(s_BHKV: Tensor) -> torch.dtype:
    return torch.promote_types(s_BHKV.dtype, torch.float32)


def _steps(
    wide: torch.dtype,
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHC: Tensor,
    segments_BT: Tensor | None,
) -> tuple[tuple[Tensor, ...], ...]:
    """Queries, keys, values and decays of every head, one entry a step; a decay of 0 forgets."""
    (B, T, H, _), G = v_BTHV.shape, q_BTGK.shape[2]
    q, k = (value.to(wide).repeat_interleave(H // G, 2).unbind(1) for value in (q_BTGK, k_BTGK))
    decay_BTHC = log_decay_BTHC.to(wide).exp().expand(B, T, -1, -1)
    forgets_BT = starts(segments_BT)
    if forgets_BT is not None:
        decay_BTHC = decay_BTHC.masked_fill(forgets_BT[..., None, None], 0)
    return q, k, v_BTHV.to(wide).unbind(1), decay_BTHC.unbind(1)
