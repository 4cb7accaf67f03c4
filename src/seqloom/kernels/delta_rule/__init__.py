"""The gated delta rule: a matrix memory that corrects what a key reads before it writes.

    P_t = exp(log_decay_t) S_{t-1}        S_t = P_t + beta_t k_t (v_t - P_t^T k_t)^T        y_t = S_t^T q_t

Written so that a key of length one reads back (1 - beta) of what it read before and beta of the new value. Where
beta |k|^2 stays within [0, 2] the memory cannot grow, which is the caller's affair: keys are normalised there, and
nothing scales q. log_decay <= 0. A position with beta = 0 and log_decay = 0 is a pad and holds the state.

Shapes: B batch, T time, H heads, K key, V value.
Source: Schlag, Irie and Schmidhuber, "Linear transformers are secretly fast weight programmers", 2021,
arXiv:2102.11174, section 4.2; Yang et al., "Parallelizing linear transformers with the delta rule over sequence
length", 2024, arXiv:2406.06484, section 3; Yang, Kautz and Hatamizadeh, "Gated delta networks", 2024, arXiv:2412.06464.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel


@kernel
def delta_rule(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    beta_BTH: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the outputs, in the dtype of ``v_BTHV``, and the last state, in float32 or wider.

    This body is the meaning; backends only go faster. Half precision is computed in float32.

    Args:
        q_BTHK: queries.
        k_BTHK: keys, of length one as a rule.
        v_BTHV: values.
        log_decay_BTH: logarithms of the decays, one a head.
        beta_BTH: how much of the error is written.
        s_BHKV: state before the first column.
        segments_BT: number of each position's segment, from 0 for what continues ``s_BHKV``; None = one segment.
        lengths_B: columns of each row that count, the first ones; the others hold the state and come out as 0.
    """
    wrong = mismatch(q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH, s_BHKV, segments_BT, lengths_B)
    if wrong is not None:
        raise ConfigError(f"delta_rule: {wrong}")
    q, k, v, decay, beta = _steps(q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH, s_BHKV, segments_BT, lengths_B)
    state_BHKV, outputs = s_BHKV.to(widest(q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH, s_BHKV)), []
    for q_BHK, k_BHK, v_BHV, decay_BH, beta_BH in zip(q, k, v, decay, beta, strict=True):
        held_BHKV = decay_BH[..., None, None] * state_BHKV
        error_BHV = v_BHV - _read(held_BHKV, k_BHK)
        state_BHKV = held_BHKV + (beta_BH[..., None] * k_BHK)[..., None] * error_BHV[..., None, :]
        outputs.append(_read(state_BHKV, q_BHK))
    y_BTHV = torch.stack(outputs, 1).to(v_BTHV.dtype) if outputs else v_BTHV.new_empty(v_BTHV.shape)
    return cleared(y_BTHV, lengths_B), state_BHKV.to(state_dtype(s_BHKV)).clone(memory_format=torch.contiguous_format)


@delta_rule.shapes
def shapes(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    s_BHKV = rest[2]
    return v_BTHV.new_empty(v_BTHV.shape), s_BHKV.new_empty(s_BHKV.shape, dtype=state_dtype(s_BHKV))


@delta_rule.vjp(outputs=())
def backward(grads: tuple[Tensor, ...], inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Keep the inputs alone: the states are computed again."""
    return (*delta_rule_backward(*grads, *inputs), None, None)


@delta_rule.cost
def cost(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHV: Tensor, *rest: Any) -> Cost:
    """A step reads the state twice and adds one outer product; columns that do not count cost nothing."""
    given = (q_BTHK, k_BTHK, v_BTHV, v_BTHV, *rest[:3], rest[2])
    (B, T, H, V), lengths_B = v_BTHV.shape, rest[4]
    columns = B * T if lengths_B is None else int(lengths_B.sum())
    return Cost(3 * columns * H * V * q_BTHK.shape[3], sum(value.nbytes for value in given))


@delta_rule.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    """Smallest first, odd sizes, no step, segments, rows of different lengths, several chunks and closed gates."""

    def inputs(B: int, T: int, H: int, K: int, V: int, spread: float = 1.0) -> tuple[Tensor, ...]:
        q, k = (torch.randn(B, T, H, K, generator=rng, dtype=dtype) for _ in range(2))
        v = torch.randn(B, T, H, V, generator=rng, dtype=dtype)
        decay, beta = (torch.rand(B, T, H, generator=rng, dtype=dtype) for _ in range(2))
        start = torch.randn(B, H, K, V, generator=rng, dtype=dtype)
        return q, k / k.norm(dim=-1, keepdim=True), v, -spread * decay, beta, start

    def segments(B: int, T: int) -> Tensor:
        return (torch.rand(B, T, generator=rng) < 0.15).long().cumsum(1)

    yield (*inputs(1, 1, 1, 1, 1), None, None)
    yield (*inputs(2, 3, 2, 2, 3), torch.tensor([[0, 0, 1], [1, 1, 1]]), torch.tensor([3, 1]))
    yield (*inputs(2, 0, 2, 3, 2), None, None)
    yield (*inputs(2, 5, 1, 3, 2), None, torch.tensor([0, 0]))
    yield (*inputs(1, 21, 2, 5, 7, 60.0), None, None)
    yield (*inputs(3, 37, 1, 5, 3), segments(3, 37), torch.tensor([37, 0, 34]))
    yield (*inputs(1, 131, 2, 17, 9, 0.1), segments(1, 131), None)
    yield (*inputs(4, 70, 1, 6, 11), None, torch.tensor([5, 70, 33, 64]))


@kernel
def delta_rule_backward(
    dy_BTHV: Tensor,
    dlast_BHKV: Tensor,
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    beta_BTH: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, log_decay, beta and s: the states forwards, their adjoints backwards.

    Its second order is that of this body.
    """
    given = (q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH, s_BHKV)
    wrong = unfit(dy_BTHV, dlast_BHKV, *given, segments_BT, lengths_B)
    if wrong is not None:
        raise ConfigError(f"delta_rule_backward: {wrong}")
    q, k, v, decay, beta = _steps(*given, segments_BT, lengths_B)
    wide, T = widest(*given), v_BTHV.shape[1]
    states, dy = [s_BHKV.to(wide)], cleared(dy_BTHV.to(wide), lengths_B).unbind(1)
    for t in range(T):
        held = decay[t][..., None, None] * states[t]
        written = beta[t][..., None] * (v[t] - _read(held, k[t]))
        states.append(held + k[t][..., None] * written[..., None, :])
    after_BHKV, found = dlast_BHKV.to(wide), []
    for t in reversed(range(T)):
        after_BHKV = after_BHKV + q[t][..., None] * dy[t][..., None, :]
        held = decay[t][..., None, None] * states[t]
        error_BHV, back_BHV = v[t] - _read(held, k[t]), _read(after_BHKV, k[t])
        dv_BHV = beta[t][..., None] * back_BHV
        written_BHV = beta[t][..., None] * error_BHV
        dk_BHK = _write(after_BHKV, written_BHV) - _write(held, dv_BHV)
        dheld = after_BHKV - k[t][..., None] * dv_BHV[..., None, :]
        ddecay_BH, dbeta_BH = (dheld * held).sum((2, 3)), (back_BHV * error_BHV).sum(2)
        found.append((_write(states[t + 1], dy[t]), dk_BHK, dv_BHV, ddecay_BH, dbeta_BH))
        after_BHKV = decay[t][..., None, None] * dheld
    if not found:
        return *(torch.zeros_like(value) for value in given[:5]), after_BHKV.to(s_BHKV.dtype).clone()  # type: ignore
    dq, dk, dv, ddecay, dbeta = (torch.stack(rows[::-1], 1) for rows in zip(*found, strict=True))
    ddecay, dbeta = cleared(ddecay, lengths_B), cleared(dbeta, lengths_B)  # a pad's own count for nothing
    ds_BHKV = after_BHKV.clone(memory_format=torch.contiguous_format)
    pairs = zip((dq, dk, dv, ddecay, dbeta, ds_BHKV), given, strict=True)
    return tuple(grad.to(value.dtype) for grad, value in pairs)  # type: ignore[return-value]


@delta_rule_backward.shapes
def backward_shapes(dy_BTHV: Tensor, dlast_BHKV: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(value.new_empty(value.shape) for value in inputs[:6])


@delta_rule_backward.cost
def backward_cost(dy_BTHV: Tensor, dlast_BHKV: Tensor, *inputs: Any) -> Cost:
    """The states again, three reads and two outer products of their adjoints, one read of the states."""
    given = (dy_BTHV, dlast_BHKV, *inputs[:6], *inputs[:6])
    return Cost(8 * dy_BTHV.numel() * inputs[0].shape[3], sum(value.nbytes for value in given))


@delta_rule_backward.cases
def backward_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | None, ...]]:
    """Adjoints of the forward's own cases."""
    for case in examples(rng, dtype):
        dy_BTHV, dlast_BHKV = (torch.randn(case[at].shape, generator=rng, dtype=dtype) for at in (2, 5))
        yield dy_BTHV, dlast_BHKV, *case


def mismatch(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, s: Tensor, segments: Any, lengths: Any
) -> str | None:
    """What does not fit, in words; None where all does."""
    if not q.ndim == v.ndim == s.ndim == 4:
        return "queries, keys, values and state have four axes each"
    B, T, H, K = q.shape
    wanted = {
        "k": (k, (B, T, H, K)),
        "v": (v, (B, T, H, v.shape[3])),
        "log_decay": (decay, (B, T, H)),
        "beta": (beta, (B, T, H)),
        "the state": (s, (B, H, K, v.shape[3])),
        "segments": (segments, (B, T)),
        "lengths": (lengths, (B,)),
    }
    for name, (value, shape) in wanted.items():
        if value is not None and value.shape != shape:
            return f"{name} {tuple(value.shape)} should be {shape}, as q is {tuple(q.shape)}"
    return None


def unfit(*inputs: Any) -> str | None:
    """The same for the inputs of the rule, or of its adjoint, which has two more in front."""
    adjoints, given = inputs[:-8], inputs[-8:]
    wrong = mismatch(*given)
    if wrong is None and adjoints and (adjoints[0].shape, adjoints[1].shape) != (given[2].shape, given[5].shape):
        return "the adjoints' shapes are not those of v and s"
    return wrong


def widest(*tensors: Tensor) -> torch.dtype:
    """The dtype of the arithmetic: float32, or float64 where an input is."""
    return torch.float64 if any(value.dtype == torch.float64 for value in tensors) else torch.float32


def state_dtype(s_BHKV: Tensor) -> torch.dtype:
    """Dtype of the state that comes back."""
    return torch.promote_types(s_BHKV.dtype, torch.float32)


def valid(lengths_B: Tensor | None, x_BT: Tensor) -> Tensor:
    """True at the columns that count (B, T)."""
    at_T = torch.arange(x_BT.shape[1], device=x_BT.device)
    return (at_T < (x_BT.shape[1] if lengths_B is None else lengths_B[:, None])).expand(x_BT.shape[:2])


def cleared(x_BT: Tensor, lengths_B: Tensor | None) -> Tensor:
    """Zeros in the columns that do not count, whatever stood there."""
    if lengths_B is None:
        return x_BT
    return x_BT.masked_fill(~valid(lengths_B, x_BT)[(...,) + (None,) * (x_BT.ndim - 2)], 0)


def starts(segments_BT: Tensor) -> Tensor:
    """True at the first column of each segment but the one that goes on from the state (B, T)."""
    before_BT = torch.cat([torch.zeros_like(segments_BT[:, :1]), segments_BT[:, :-1]], 1)
    return segments_BT != before_BT


def _steps(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, s: Tensor, segments: Any, lengths: Any
) -> tuple[tuple[Tensor, ...], ...]:
    """One entry a step, in the dtype of the arithmetic; a decay of 0 forgets, pads neither decay nor write."""
    wide = widest(q, k, v, log_decay, beta, s)
    q, k, v, log_decay, beta = (cleared(value.to(wide), lengths) for value in (q, k, v, log_decay, beta))
    decay_BTH = log_decay.exp()
    if segments is not None:
        begins_BT = starts(segments) & valid(lengths, segments)
        decay_BTH = decay_BTH.masked_fill(begins_BT[..., None], 0)
    return tuple(value.unbind(1) for value in (q, k, v, decay_BTH, beta))


def _read(s_BHKV: Tensor, k_BHK: Tensor) -> Tensor:
    return (s_BHKV * k_BHK[..., None]).sum(2)


def _write(s_BHKV: Tensor, v_BHV: Tensor) -> Tensor:
    return (s_BHKV * v_BHV[..., None, :]).sum(3)
