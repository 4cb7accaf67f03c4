"""The chunked form: inside a chunk a triangular system, between chunks one matrix product after another.

    X = M^-1 (beta (V - e^G K S0))              M = I + strictly lower part of beta (K K^T * D)
    Y = e^G Q S0 + (lower part of Q K^T * D) X           S1 = e^(G_C) S0 + (e^(G_C - G) K)^T X

with G the running sum of the log decays in the chunk and D_ij = e^(G_i - G_j); all exponents are <= 0. Where a segment
starts, the factors that would reach across it are zero. Everything but the product with S0 is done for all chunks at
once. Chunks without a valid column are left out: rows are sorted by length, so that the n-th chunks of those that have
one are the first rows.

The backward pass keeps nothing: it computes X and the states S0 again, then runs the same two passes the other way.

Shapes: B rows, T time, H heads, K key, V value, N chunks of the longest row, F chunks of all rows, C columns a chunk.
Source: Yang et al., 2024, arXiv:2406.06484, section 3.2 (the WY form); Yang, Kautz and Hatamizadeh, 2024,
arXiv:2412.06464, section 3.3 (with decay).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.linalg import solve_triangular

from seqloom.kernels.delta_rule import cleared, starts, state_dtype, unfit, valid, widest

WEAKEST = -100.0
"""Log decays below this are as this, which forgets all as well, and leaves the others of a chunk their digits."""
LONG, SHORT = 64, 32
"""Columns of a chunk: the triangle costs C^2 a column, the state K V / C; the shorter for small states."""


def refuses(*inputs: Any) -> str | None:
    wrong = unfit(*inputs)
    if wrong is not None:
        return wrong
    q, v = inputs[-8], inputs[-6]
    if q.shape[1] < 2:
        return "fewer than two steps: a chunk would cost more than the work"
    if 0 in q.shape or 0 in v.shape:
        return "no rows, heads or channels"
    return None if q.dtype.is_floating_point else f"no {q.dtype}"


@dataclass(frozen=True)
class Grid:
    """Which chunks there are, and where their columns lie."""

    rows_F: Tensor
    """Row of each chunk; first the first chunks of the longest rows, then their second ones, and so on."""
    chunk_F: Tensor
    """Its number within the row."""
    active: tuple[int, ...]
    """How many rows have a first chunk, a second one, ..."""
    order_B: Tensor
    """Rows from the longest to the shortest."""
    size: int

    def cut(self, x_BTH: Tensor) -> Tensor:
        """(B, T, H, ...) -> (F, H, C, ...), pads of the last chunk zero."""
        short = -x_BTH.shape[1] % self.size
        if short:
            x_BTH = torch.cat([x_BTH, x_BTH.new_zeros(len(x_BTH), short, *x_BTH.shape[2:])], 1)
        x_BNCH = x_BTH.unflatten(1, (-1, self.size))
        return x_BNCH[self.rows_F, self.chunk_F].transpose(1, 2)

    def join(self, x_FHC: Tensor, like_BTH: Tensor) -> Tensor:
        """The inverse, zeros where no chunk is."""
        B, T = like_BTH.shape[:2]
        whole = len(x_FHC) == B * -(-T // self.size)
        make = x_FHC.new_empty if whole else x_FHC.new_zeros
        y_BNCH = make(B, -(-T // self.size), self.size, x_FHC.shape[1], *x_FHC.shape[3:])
        y_BNCH[self.rows_F, self.chunk_F] = x_FHC.transpose(1, 2)
        return y_BNCH.flatten(1, 2)[:, :T]


def grid(q_BTHK: Tensor, lengths_B: Tensor | None, values: int) -> Grid:
    """The chunks that hold a valid column."""
    (B, T, _, K), device = q_BTHK.shape, q_BTHK.device
    size = min(LONG if K * values >= LONG * LONG else SHORT, T)
    if lengths_B is None:
        order_B, chunks = torch.arange(B, device=device), [-(-T // size)] * B
    else:
        length_B, order_B = lengths_B.clamp(0, T).sort(descending=True, stable=True)
        chunks = [-(-n // size) for n in length_B.tolist()]
    active = tuple(sum(each > n for each in chunks) for n in range(max(chunks, default=0)))
    rows = [order_B[:count] for count in active]
    numbers = [torch.full((count,), n, device=device) for n, count in enumerate(active)]
    none = order_B[:0]
    return Grid(torch.cat([none, *rows]), torch.cat([none, *numbers]), active, order_B, size)


@dataclass(frozen=True)
class Work:
    """What forward and backward have in common, (F, H, C, ...) each."""

    q: Tensor
    k: Tensor
    v: Tensor
    beta: Tensor
    decays: Tensor
    """D: between two columns, zero above the diagonal and across segments."""
    since: Tensor
    """From the state before the chunk, zero behind a start."""
    until: Tensor
    """To the state after the chunk, zero before the last start."""
    across: Tensor
    """(F, H, 1): of the state itself."""
    products: Tensor
    """K K^T * D."""
    system: Tensor
    """M; its diagonal is never read."""


def prepare(at: Grid, inputs: tuple[Any, ...], wide: torch.dtype) -> Work:
    """Cut, and everything that does not depend on the state."""
    q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH, _, segments_BT, lengths_B = inputs
    valid_BT = valid(lengths_B, q_BTHK)
    log_decay_BTH = log_decay_BTH.clamp_min(WEAKEST)
    if segments_BT is not None:  # a start forgets by the masks
        log_decay_BTH = log_decay_BTH.masked_fill(starts(segments_BT)[..., None], 0)
    given = (q_BTHK, k_BTHK, v_BTHV, beta_BTH, log_decay_BTH)
    q, k, v, beta, log_decay = (at.cut(cleared(value.to(wide), lengths_B)) for value in given)
    sums_FHC = log_decay.cumsum(2)
    span_FHCC = sums_FHC[..., None] - sums_FHC[..., None, :]
    lower_CC = torch.ones(at.size, at.size, dtype=torch.bool, device=q.device).tril()
    total_FH1 = sums_FHC[..., -1:]
    if segments_BT is None:
        decays = span_FHCC.masked_fill(~lower_CC, -torch.inf).exp()
        since, until, across = sums_FHC.exp(), (total_FH1 - sums_FHC).exp(), total_FH1.exp()
    else:
        own_F1C, before_F11 = _numbers(at, segments_BT, valid_BT)
        same = (own_F1C[..., None] == own_F1C[..., None, :]) & lower_CC
        decays = span_FHCC.masked_fill(~same, -torch.inf).exp()
        since = sums_FHC.exp() * (own_F1C == before_F11)
        until = (total_FH1 - sums_FHC).exp() * (own_F1C == own_F1C[..., -1:])
        across = total_FH1.exp() * (own_F1C[..., -1:] == before_F11)
    products = (k @ k.transpose(2, 3)) * decays
    return Work(q, k, v, beta, decays, since, until, across, products, beta[..., None] * products)


def _numbers(at: Grid, segments_BT: Tensor, valid_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Segment of each column of each chunk, pads belonging to the last valid one, and that before the chunk."""
    number_BT = (starts(segments_BT) & valid_BT).cumsum(1)
    short = -number_BT.shape[1] % at.size
    number_BT = torch.cat([number_BT, number_BT[:, -1:].expand(-1, short)], 1)
    number_BNC = number_BT.unflatten(1, (-1, at.size))
    before_BN = torch.cat([torch.zeros_like(number_BT[:, :1]), number_BNC[:, :-1, -1]], 1)
    return number_BNC[at.rows_F, at.chunk_F][:, None], before_BN[at.rows_F, at.chunk_F][:, None, None]


def _solve(work: Work, right: Tensor, *, transposed: bool = False) -> Tensor:
    """M^-1 or M^-T times the right side."""
    system = work.system.transpose(2, 3) if transposed else work.system
    return solve_triangular(system, right, upper=transposed, unitriangular=True)


def _states(at: Grid, work: Work, s_BHKV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """State before every chunk (F, H, K, V), what each chunk writes X (F, H, C, V), and the rows' last states."""
    K = work.k.shape[3]
    sides = torch.cat([(work.beta * work.since)[..., None] * work.k, work.beta[..., None] * work.v], 3)
    reads, written = _solve(work, sides).split([K, work.v.shape[3]], 3)
    writes = (work.until[..., None] * work.k).transpose(2, 3)
    state_BHKV = s_BHKV[at.order_B].clone()
    before, start = work.k.new_empty(len(work.k), *state_BHKV.shape[1:]), 0
    for count in at.active:
        f = slice(start, start + count)
        before[f] = state_BHKV[:count]
        written[f] -= reads[f] @ before[f]
        state_BHKV[:count] *= work.across[f][..., None]
        state_BHKV[:count] += writes[f] @ written[f]
        start += count
    return before, written, torch.empty_like(state_BHKV).index_copy_(0, at.order_B, state_BHKV)


def forward(
    q_BTHK: Tensor,
    k_BTHK: Tensor,
    v_BTHV: Tensor,
    log_decay_BTH: Tensor,
    beta_BTH: Tensor,
    s_BHKV: Tensor,
    segments_BT: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    inputs = (q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH, s_BHKV, segments_BT, lengths_B)
    wide, at = widest(*inputs[:6]), grid(q_BTHK, lengths_B, v_BTHV.shape[3])
    work = prepare(at, inputs, wide)
    before, written, last_BHKV = _states(at, work, s_BHKV.to(wide))
    y_FHCV = (work.since[..., None] * work.q) @ before + ((work.q @ work.k.transpose(2, 3)) * work.decays) @ written
    y_BTHV = at.join(y_FHCV, v_BTHV)
    return cleared(y_BTHV, lengths_B).to(v_BTHV.dtype).contiguous(), last_BHKV.to(state_dtype(s_BHKV))


def backward(
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
    inputs = (q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH, s_BHKV, segments_BT, lengths_B)
    wide, at = widest(*inputs[:6]), grid(q_BTHK, lengths_B, v_BTHV.shape[3])
    dy_BTHV = cleared(dy_BTHV, lengths_B)
    work = prepare(at, inputs, wide)
    before, written, _ = _states(at, work, s_BHKV.to(wide))
    dy_FHCV = at.cut(dy_BTHV.to(wide))
    dright, after, ds_BHKV = _adjoints(at, work, dy_FHCV, dlast_BHKV.to(wide))
    found = _gradients(work, dy_FHCV, dright, before, written, after)
    likes = (q_BTHK, k_BTHK, v_BTHV, log_decay_BTH, beta_BTH)
    grads = [at.join(value, like) for value, like in zip(found, likes, strict=True)]
    if segments_BT is not None:  # a start's own decay counts for nothing
        grads[3] = grads[3].masked_fill(starts(segments_BT)[..., None], 0)
    grads = [cleared(value, lengths_B) for value in grads]
    pairs = zip((*grads, ds_BHKV), (*likes, s_BHKV), strict=True)
    return tuple(value.to(like.dtype).contiguous() for value, like in pairs)  # type: ignore[return-value]


def _adjoints(at: Grid, work: Work, dy: Tensor, dlast_BHKV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Adjoint of the right side of every system, of the state after every chunk, and of the rows' first states."""
    K = work.k.shape[3]
    scores = (work.q @ work.k.transpose(2, 3)) * work.decays
    sides = torch.cat([work.until[..., None] * work.k, scores.transpose(2, 3) @ dy], 3)
    maps, dright = _solve(work, sides, transposed=True).split([K, dy.shape[3]], 3)
    reads = (work.since[..., None] * work.q).transpose(2, 3) @ dy
    keys = ((work.beta * work.since)[..., None] * work.k).transpose(2, 3)
    ds_BHKV = dlast_BHKV[at.order_B].clone()
    after, stop = torch.empty_like(reads), len(work.k)
    for count in reversed(at.active):
        f = slice(stop - count, stop)
        after[f] = ds_BHKV[:count]
        dright[f] += maps[f] @ after[f]
        ds_BHKV[:count] *= work.across[f][..., None]
        ds_BHKV[:count] += reads[f] - keys[f] @ dright[f]
        stop -= count
    return dright, after, torch.empty_like(ds_BHKV).index_copy_(0, at.order_B, ds_BHKV)


def _gradients(
    work: Work, dy: Tensor, dright: Tensor, before: Tensor, written: Tensor, after: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, log decay and beta, chunk by chunk (F, H, C, ...)."""
    q, k, beta, since, until = work.q, work.k, work.beta[..., None], work.since[..., None], work.until[..., None]
    turned = before.transpose(2, 3)
    read, dread = k @ before, -beta * dright  # what the keys read of the state: right side = beta (v - since read)
    dsince = (dy * (q @ before)).sum(3) + (dread * read).sum(3)
    dscores = dy @ written.transpose(2, 3)
    scored = dscores * work.decays
    dsystem = -dright @ written.transpose(2, 3)
    weighed = beta * dsystem * work.decays
    weighed = weighed.tril(-1)
    dq = since * (dy @ turned) + scored @ k
    back = written @ after.transpose(2, 3)
    dk = (
        since * (dread @ turned) + scored.transpose(2, 3) @ q + weighed @ k + weighed.transpose(2, 3) @ k + until * back
    )
    dbeta = (dright * (work.v - since * read)).sum(3) + (dsystem * work.products).tril(-1).sum(3)
    spans = scored * (q @ k.transpose(2, 3)) + (beta * dsystem * work.products).tril(-1)
    duntil = (back * k).sum(3) * work.until
    dsums = since[..., 0] * dsince + spans.sum(3) - spans.sum(2) - duntil
    dsums[..., -1] += duntil.sum(2) + work.across[..., 0] * (after * before).sum((2, 3))
    return dq, dk, beta * dright, dsums.flip(2).cumsum(2).flip(2), dbeta


FORWARDS = {"delta_rule": forward, "delta_rule_backward": backward}
