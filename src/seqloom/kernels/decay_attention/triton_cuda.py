"""Chunks of 64 steps: a sequential pass keeps the states at their edges, everything else runs in parallel over them."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from seqloom.kernels.decay_attention import gathered, mismatch, starts, summed, widest
from seqloom.kernels.decay_attention._channels_cuda import channel_gradients, channel_scores, channel_slopes
from seqloom.kernels.decay_attention._passes_cuda import edge_states, head_gradients, outputs, value_gradients

STEPS, PIECE = 64, 16  # of a chunk, and of what one decay a channel allows to be one matrix product
BLOCK, SMALL_BLOCK = 64, 32  # channels that a program holds at once; float32's three products fill registers sooner
WIDEST_KEY = 256  # with one decay a channel: a piece's rows are held whole
INTERPRETED = triton.knobs.runtime.interpret  # read once: a compiler cannot trace the reading
DTYPES = {torch.float32: tl.float32, torch.float64: tl.float64, torch.bfloat16: tl.bfloat16}


def refuses(*inputs: Any) -> str | None:
    """Serves the attention (q, ...) and its adjoint (dy, dlast, q, ...)."""
    *given, q, k, v, log_decay, s, segments = inputs
    if q.dtype not in (*DTYPES, torch.float16) or any(value.dtype != q.dtype for value in (k, v)):
        return f"queries, keys and values are {q.dtype}, {k.dtype} and {v.dtype}; it serves one floating dtype"
    if torch.float64 in (q.dtype, log_decay.dtype, s.dtype) and not INTERPRETED:
        return "it has no tensor cores for float64"
    if log_decay.shape[-1] > WIDEST_KEY:
        return f"{log_decay.shape[-1]} decays a head, {WIDEST_KEY} are the most"
    if given and (given[0].shape != v.shape or given[1].shape != s.shape):
        return "the adjoints' shapes are not those of v and s"
    if 0 in v.shape or 0 in q.shape:
        return "there is nothing to compute"
    return mismatch(q, k, v, log_decay, s, segments)


def forward(
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHC: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    q, k, v, a, s = _plain(q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV)
    call = _Call(q, v, a, s, segments_BT)
    states, last = call.states(k, v, s)
    y_BTHV = torch.empty_like(v)
    scores = call.scores(q, k) if call.channel else None
    grid = (call.chunks, triton.cdiv(call.V, call.BV))
    tensors = (q, k, v, a, call.forgets, states, scores, y_BTHV)
    outputs[grid](*tensors, *call.sizes, **call.widths, **call.form, CHANNEL=call.channel)
    return y_BTHV, last.to(torch.promote_types(s_BHKV.dtype, torch.float32))


def backward(
    dy_BTHV: Tensor,
    dlast_BHKV: Tensor,
    q_BTGK: Tensor,
    k_BTGK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTHC: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dy, dlast, q, k, v, a, s = _plain(dy_BTHV, dlast_BHKV, q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV)
    call = _Call(q, v, a, s, segments_BT)
    (states, last), (after, ds) = call.states(k, v, s), call.states(q, dy, dlast, reverse=True)
    scores, dv = call.scores(q, k) if call.channel else None, torch.empty_like(v)
    grid = (call.chunks, triton.cdiv(call.V, call.BV))
    tensors = (q, k, dy, a, call.forgets, after, scores, dv)
    value_gradients[grid](*tensors, *call.sizes, **call.widths, **call.form, CHANNEL=call.channel)
    dq, dk, da = (call.channel_gradients if call.channel else call.head_gradients)(q, k, v, dy, states, last, after)
    results = (gathered(dq, q), gathered(dk, k), dv, summed(da, a), ds)
    like = (q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV)
    dq, dk, dv, da, ds = (value.to(given.dtype) for value, given in zip(results, like, strict=True))
    return dq, dk, dv, da, ds


FORWARDS = {"decay_attention": forward, "decay_attention_backward": backward}


def _plain(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(value.detach().contiguous() for value in tensors)


class _Call:
    """The sizes of one call and what its kernels are told of them."""

    def __init__(self, q: Tensor, v: Tensor, a: Tensor, s: Tensor, segments_BT: Tensor | None) -> None:
        (self.B, self.T, self.H, self.V), (self.G, self.K) = v.shape, q.shape[2:]
        self.a, self.wide = a, widest(q, v, a, s)
        self.channel = a.shape[3] > 1
        self.N = triton.cdiv(self.T, STEPS)
        self.chunks = self.B * self.H * self.N
        # products of bfloat16 are of bfloat16; float16 would overflow in the states and has tf32's digits. Triton's
        # interpreter multiplies the bits of bfloat16 as if they were integers.
        half = (q.dtype, self.wide) == (torch.bfloat16, torch.float32) and not INTERPRETED
        self.dot = torch.bfloat16 if half else self.wide
        block = BLOCK if self.dot == torch.bfloat16 else SMALL_BLOCK
        self.BK, self.BV = (min(block, max(16, triton.next_power_of_2(size))) for size in (self.K, self.V))
        precision = {torch.float32: "tf32x3", torch.float16: "tf32"}.get(q.dtype, "ieee")
        constant = a.shape[:2] != v.shape[:2]
        self.form = {"DOT": DTYPES[self.dot], "WIDE": DTYPES[self.wide], "PRECISION": precision, "CONSTANT": constant}
        self.sizes = (self.T, self.N, self.H, self.G)
        self.widths = {"K": self.K, "V": self.V, "L": STEPS, "BK": self.BK, "BV": self.BV}
        forgets_BT = starts(segments_BT)
        self.forgets = None if forgets_BT is None else forgets_BT.to(torch.int8).contiguous()

    def states(self, x: Tensor, v: Tensor, first: Tensor, reverse: bool = False) -> tuple[Tensor, Tensor]:
        """States before the chunks and after the last; reversed, adjoints after the chunks and before the first."""
        states = v.new_empty(self.B, self.H, self.N, self.K, self.V, dtype=self.dot)
        last = torch.empty_like(first, dtype=self.wide)
        widths = self.widths | {"BV": min(self.BV, SMALL_BLOCK)}  # the one pass that time does not split: more programs
        grid = (self.B * self.H, triton.cdiv(self.K, self.BK), triton.cdiv(self.V, widths["BV"]))
        tensors = (x, v, self.a, self.forgets, first, states, last)
        edge_states[grid](*tensors, *self.sizes, **widths, **self.form, CHANNEL=self.channel, REVERSE=reverse)
        return states, last

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Scores within the chunks, one decay a channel; above the diagonal unwritten."""
        scores = self._pairs(q)
        whole = {"K": self.K, "L": STEPS, "S": PIECE, "BK": max(16, triton.next_power_of_2(self.K))}
        grid = (self.chunks, STEPS // PIECE)
        channel_scores[grid](q, k, self.a, self.forgets, scores, *self.sizes, **whole, **self.form)
        return scores

    def head_gradients(
        self, q: Tensor, k: Tensor, v: Tensor, dy: Tensor, states: Tensor, last: Tensor, after: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        blocks = triton.cdiv(self.K, self.BK)
        da = v.new_empty(blocks, self.B, self.T, self.H, dtype=self.wide)
        dq, dk = self._by_head(q), self._by_head(k)
        tensors = (q, k, v, dy, self.a, self.forgets, states, after, dq, dk, da)
        head_gradients[(self.chunks, blocks)](*tensors, *self.sizes, self.B, **self.widths, **self.form)
        return dq, dk, da.sum(0)[..., None]

    def channel_gradients(
        self, q: Tensor, k: Tensor, v: Tensor, dy: Tensor, states: Tensor, last: Tensor, after: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        slopes, dq, dk = self._pairs(v), self._by_head(q), self._by_head(k)
        da = v.new_empty(self.B, self.T, self.H, self.K, dtype=self.wide)
        form = {key: value for key, value in self.form.items() if key != "CONSTANT"}
        channel_slopes[(self.chunks,)](v, dy, slopes, *self.sizes[:3], V=self.V, L=STEPS, BV=self.BV, **form)
        tensors = (q, k, v, dy, self.a, self.forgets, states, last, after, slopes, dq, dk, da)
        grid = (self.chunks, triton.cdiv(self.K, self.BK))
        channel_gradients[grid](*tensors, *self.sizes, **self.widths, **self.form, S=PIECE)
        return dq, dk, da

    def _pairs(self, like: Tensor) -> Tensor:
        return like.new_empty(self.B, self.H, self.N, STEPS, STEPS, dtype=self.dot)

    def _by_head(self, q: Tensor) -> Tensor:
        """Memory for the gradient of every head: in float32 where heads of a group are still to be summed."""
        dtype = q.dtype if self.G == self.H else self.wide
        return q.new_empty(self.B, self.T, self.H, self.K, dtype=dtype)
