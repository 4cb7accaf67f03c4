"""Gated nonlinear recurrences, one head at a time: the sequential loop of sLSTM, LSTM and GRU.

    g = x_g + p_g,   p_g = R_g h_{t-1} + b_g       for every gate g

    lstm    i, f, g, o    c' = sigmoid(f) c + sigmoid(i) tanh(g)                  h' = sigmoid(o) tanh(c')
    gru     r, z, n       h' = n' + sigmoid(z) (h - n'),   n' = tanh(x_n + sigmoid(r) p_n)
    slstm   i, f, z, o    a  = sigmoid(i - F - l)                                 h' = sigmoid(o) u'
                          l' = log(exp(F + l) + exp(i))       u' = u + a (tanh(z) - u)

F is log sigmoid(f), or f itself in "slstm_exp". The sLSTM is written with the normalised cell u = c / n and the log of
its normaliser l = m + log n, instead of the paper's c, n and stabiliser m: the same h for every m, nothing that can
overflow, and l = -inf is the cell that has seen nothing (then a = 1). The maximum is taken inside the logarithm, for
each number by itself.

Shapes: B batch, T time, S tensors of the state (h alone; h, c; h, u, l), G gates, H heads, J and K units of a head.
Source: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; Cho et al., "Learning Phrase Representations using
RNN Encoder-Decoder", 2014, arXiv:1406.1078, section 2.3; Beck et al., "xLSTM: Extended Long Short-Term Memory", 2024,
arXiv:2405.04517, section 2.2 and appendix A.2.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import Cost, kernel

GATES = {"lstm": 4, "gru": 3, "slstm": 4, "slstm_exp": 4}
STATES = {"lstm": 2, "gru": 1, "slstm": 3, "slstm_exp": 3}
SLOTS = 4
"""Gates as the loops hold them: the GRU's are r, z, p_n and x_n."""
NEVER = float("-inf")
"""l of a cell that has seen nothing."""


@kernel
def gated_loop(
    pre_BTGHK: Tensor,
    weight_GHJK: Tensor,
    state_SBHK: Tensor,
    bias_GHK: Tensor | None = None,
    moves_BT: Tensor | None = None,
    cell: str = "lstm",
) -> Tensor:
    """Return the state after every column, (S, B, T, H, K); its first tensor is the output.

    Computed in float32 at least, and returned so.

    Args:
        pre_BTGHK: what the inputs give to each gate.
        weight_GHJK: recurrent weights, outputs first; the GRU's last gate is the product within its reset.
        state_SBHK: state before the first column.
        bias_GHK: added to the recurrent products.
        moves_BT: 0 = a step, 1 = a step from an empty state (a segment starts), -1 = the state stays (a pad).
        cell: "lstm", "gru", "slstm" (forget gate by a sigmoid) or "slstm_exp" (by an exponential).
    """
    _refuse(pre_BTGHK, weight_GHJK, state_SBHK, cell)
    wide, slots = _wide(pre_BTGHK, weight_GHJK, state_SBHK), []
    pre_BTGHK, weight_GHJK, state_SBHK = (value.to(wide) for value in (pre_BTGHK, weight_GHJK, state_SBHK))
    empty_SBHK, states = empty(state_SBHK, cell), []
    for t, pre_BGHK in enumerate(pre_BTGHK.unbind(1)):
        begin_SBHK = _begin(state_SBHK, empty_SBHK, moves_BT, t)
        product_BGHK = torch.einsum("ghjk,bhk->bghj", weight_GHJK, begin_SBHK[0])
        if bias_GHK is not None:
            product_BGHK = product_BGHK + bias_GHK.to(wide)
        slots = gates_of(pre_BGHK, product_BGHK, cell, 1)
        after_SBHK = torch.stack(_advance(slots, begin_SBHK, cell))
        if moves_BT is not None:
            after_SBHK = torch.where((moves_BT[:, t] < 0)[:, None, None], state_SBHK, after_SBHK)
        state_SBHK = after_SBHK
        states.append(state_SBHK)
    if not states:
        S, B, H, K = state_SBHK.shape
        return state_SBHK.new_empty(S, B, 0, H, K)
    return torch.stack(states, 2)


@gated_loop.shapes
def shapes(pre_BTGHK, weight_GHJK, state_SBHK, bias_GHK=None, moves_BT=None, cell="lstm"):
    (B, T, _, H, K), wide = pre_BTGHK.shape, _wide(pre_BTGHK, weight_GHJK, state_SBHK)
    return pre_BTGHK.new_empty((STATES[cell], B, T, H, K), dtype=wide)


@gated_loop.vjp
def backward(grads, inputs, outputs):
    """All gates by one product over the whole time, the loop backwards, all weights by another product."""
    (dstates_SBTHK,), (pre_BTGHK, weight_GHJK, state_SBHK, bias_GHK, moves_BT, cell) = grads, inputs
    (states_SBTHK,) = outputs
    wide = states_SBTHK.dtype
    weight, first_SBHK = weight_GHJK.to(wide), state_SBHK.to(wide)
    h_BTHK = before(states_SBTHK[0], first_SBHK[0], moves_BT)
    product_BTGHK = torch.einsum("ghjk,bthk->btghj", weight, h_BTHK)
    if bias_GHK is not None:
        product_BTGHK = product_BTGHK + bias_GHK.to(wide)
    slots_BTGHK = (
        torch.stack(gates_of(pre_BTGHK.to(wide), product_BTGHK, cell, 2), 2)
        if cell == "gru"
        else (pre_BTGHK.to(wide) + product_BTGHK)
    )
    dslots_BTGHK, dstate_SBHK = gated_loop_backward(
        dstates_SBTHK, slots_BTGHK, weight, states_SBTHK, first_SBHK, moves_BT, cell
    )
    dpre_BTGHK, dproduct_BTGHK = dslots_BTGHK, dslots_BTGHK
    if cell == "gru":
        dpre_BTGHK = torch.cat([dslots_BTGHK[:, :, :2], dslots_BTGHK[:, :, 3:]], 2)
        dproduct_BTGHK = dslots_BTGHK[:, :, :3]
    dweight_GHJK = torch.einsum("btghj,bthk->ghjk", dproduct_BTGHK, h_BTHK).to(weight_GHJK.dtype)
    dbias_GHK = None if bias_GHK is None else dproduct_BTGHK.sum((0, 1)).to(bias_GHK.dtype)
    return dpre_BTGHK.to(pre_BTGHK.dtype), dweight_GHJK, dstate_SBHK.to(state_SBHK.dtype), dbias_GHK, None, None


@gated_loop.cost
def cost(pre_BTGHK, weight_GHJK, state_SBHK, bias_GHK=None, moves_BT=None, cell="lstm"):
    moved = 0 if moves_BT is None else moves_BT.nbytes
    states = STATES[cell] * pre_BTGHK.nbytes // GATES[cell]
    return Cost(
        pre_BTGHK.numel() * pre_BTGHK.shape[-1],
        pre_BTGHK.nbytes + weight_GHJK.nbytes + state_SBHK.nbytes + states + moved,
    )


@gated_loop.cases
def examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | str | None, ...]]:
    """Every cell: one number, every kind of move, heads that fill no vector, no step, several blocks of rows."""
    for cell, bias in ("lstm", False), ("gru", True), ("slstm", True), ("slstm_exp", False):
        for B, T, H, K in ((1, 1, 1, 1), (2, 4, 2, 3), (5, 9, 2, 17), (2, 0, 1, 3), (3, 7, 1, 70)):
            draw = {"generator": rng, "dtype": dtype}
            G, S = GATES[cell], STATES[cell]
            pre_BTGHK, weight_GHJK = torch.randn(B, T, G, H, K, **draw), torch.randn(G, H, K, K, **draw) * K**-0.5
            state_SBHK, bias_GHK = torch.randn(S, B, H, K, **draw), torch.randn(G, H, K, **draw)
            moves_BT = torch.randint(-1, 2, (B, T), generator=rng, dtype=torch.int8) if K > 1 else None
            yield pre_BTGHK, weight_GHJK, state_SBHK, bias_GHK if bias else None, moves_BT, cell


@kernel
def gated_loop_backward(
    dstates_SBTHK: Tensor,
    slots_BTGHK: Tensor,
    weight_GHJK: Tensor,
    states_SBTHK: Tensor,
    state_SBHK: Tensor,
    moves_BT: Tensor | None = None,
    cell: str = "lstm",
) -> tuple[Tensor, Tensor]:
    """Gradients of the four slots of gates and of the first state.

    Args:
        dstates_SBTHK: gradients of every state.
        slots_BTGHK: pre-activations with the recurrent products in them, always four; the GRU's are r, z, p_n, x_n.
        weight_GHJK: recurrent weights.
        states_SBTHK: every state, as the loop returned them.
        state_SBHK: state before the first column.
        moves_BT: as in the loop.
        cell: as in the loop.
    """
    empty_SBHK, later_SBHK, dslots = empty(state_SBHK, cell), torch.zeros_like(state_SBHK), []
    for t in reversed(range(slots_BTGHK.shape[1])):
        earlier_SBHK = states_SBTHK[:, :, t - 1] if t else state_SBHK
        begin_SBHK = _begin(earlier_SBHK, empty_SBHK, moves_BT, t)
        carry_SBHK = dstates_SBTHK[:, :, t] + later_SBHK
        dslots_GBHK, direct_SBHK = _retreat(carry_SBHK, slots_BTGHK[:, t].unbind(1), begin_SBHK, cell)
        product_BHK = torch.einsum("ghjk,gbhj->bhk", weight_GHJK, dslots_GBHK[: len(weight_GHJK)])
        later_SBHK = torch.cat([direct_SBHK[:1] + product_BHK, direct_SBHK[1:]])
        if moves_BT is not None:
            start_B11, stay_B11 = ((moves_BT[:, t] == kind)[:, None, None] for kind in (1, -1))
            later_SBHK = torch.where(stay_B11, carry_SBHK, later_SBHK.masked_fill(start_B11, 0))
            dslots_GBHK = dslots_GBHK.masked_fill(stay_B11, 0)
        dslots.append(dslots_GBHK.transpose(0, 1))
    if not dslots:
        return torch.empty_like(slots_BTGHK), later_SBHK
    return torch.stack(dslots[::-1], 1), later_SBHK


@gated_loop_backward.shapes
def backward_shapes(dstates_SBTHK, slots_BTGHK, weight_GHJK, states_SBTHK, state_SBHK, moves_BT=None, cell="lstm"):
    return slots_BTGHK.new_empty(slots_BTGHK.shape), state_SBHK.new_empty(state_SBHK.shape)


@gated_loop_backward.cost
def backward_cost(dstates_SBTHK, slots_BTGHK, weight_GHJK, states_SBTHK, state_SBHK, moves_BT=None, cell="lstm"):
    macs = slots_BTGHK.numel() * slots_BTGHK.shape[-1] * GATES[cell] // SLOTS
    tensors = (dstates_SBTHK, slots_BTGHK, slots_BTGHK, weight_GHJK, states_SBTHK, state_SBHK, state_SBHK)
    return Cost(macs, sum(value.nbytes for value in tensors))


@gated_loop_backward.cases
def backward_examples(rng: torch.Generator, dtype: torch.dtype) -> Iterator[tuple[Tensor | str | None, ...]]:
    """Adjoints of the loop's own cases; the gates are drawn, as they need not fit the states."""
    for pre_BTGHK, weight_GHJK, state_SBHK, bias_GHK, moves_BT, cell in examples(rng, dtype):
        states_SBTHK = gated_loop.reference(pre_BTGHK, weight_GHJK, state_SBHK, bias_GHK, moves_BT, cell)
        (B, T, _, H, K), draw = pre_BTGHK.shape, {"generator": rng, "dtype": dtype}
        dstates_SBTHK = torch.randn(states_SBTHK.shape, **draw)
        slots_BTGHK = torch.randn(B, T, SLOTS, H, K, **draw)
        yield dstates_SBTHK, slots_BTGHK, weight_GHJK, states_SBTHK, state_SBHK, moves_BT, cell


def empty(state_SBHK: Tensor, cell: str) -> Tensor:
    """A state that has seen nothing."""
    return (
        torch.stack([*torch.zeros_like(state_SBHK[:2]), torch.full_like(state_SBHK[2], NEVER)])
        if cell.startswith("slstm")
        else torch.zeros_like(state_SBHK)
    )


def before(h_BTHK: Tensor, h_BHK: Tensor, moves_BT: Tensor | None) -> Tensor:
    """The output that each column's products saw: the one before it, zero at starts."""
    before_BTHK = torch.cat([h_BHK[:, None], h_BTHK], 1)[:, : h_BTHK.shape[1]]
    return before_BTHK if moves_BT is None else before_BTHK.masked_fill((moves_BT > 0)[:, :, None, None], 0)


def gates_of(pre: Tensor, product: Tensor, cell: str, axis: int) -> tuple[Tensor, ...]:
    """The four slots of gates from the inputs' part and the recurrent one."""
    if cell != "gru":
        return (pre + product).unbind(axis)
    (r, z, n), (pr, pz, pn) = pre.unbind(axis), product.unbind(axis)
    return r + pr, z + pz, pn, n


def _advance(slots: tuple[Tensor, ...], state: Tensor, cell: str) -> list[Tensor]:
    """One step of a cell."""
    if cell == "lstm":
        i, f, g, o = slots
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        return [o.sigmoid() * c.tanh(), c]
    if cell == "gru":
        r, z, p, x = slots
        n = (x + r.sigmoid() * p).tanh()
        return [n + z.sigmoid() * (state[0] - n)]
    i, f, z, o = slots
    past = state[2] + (f if cell == "slstm_exp" else logsigmoid(f))
    lead = i - past
    u = state[1] + lead.sigmoid() * (z.tanh() - state[1])
    return [o.sigmoid() * u, u, torch.maximum(past, i) + torch.log1p(torch.exp(-lead.abs()))]


def _retreat(grad: Tensor, slots: tuple[Tensor, ...], state: Tensor, cell: str) -> tuple[Tensor, Tensor]:
    """Gradients of a step's slots, and of the state before it apart from the recurrent products."""
    if cell == "lstm":
        i, f, g, o = slots[0].sigmoid(), slots[1].sigmoid(), slots[2].tanh(), slots[3].sigmoid()
        shown = (f * state[1] + i * g).tanh()
        dc = grad[1] + grad[0] * o * (1 - shown * shown)
        dslots = [
            dc * g * i * (1 - i),
            dc * state[1] * f * (1 - f),
            dc * i * (1 - g * g),
            grad[0] * shown * o * (1 - o),
        ]
        return torch.stack(dslots), torch.stack([torch.zeros_like(dc), dc * f])
    if cell == "gru":
        r, z, p = slots[0].sigmoid(), slots[1].sigmoid(), slots[2]
        n = (slots[3] + r * p).tanh()
        dn = grad[0] * (1 - z) * (1 - n * n)
        return torch.stack([dn * p * r * (1 - r), grad[0] * (state[0] - n) * z * (1 - z), dn * r, dn]), grad * z
    i, f, z, o = slots[0], slots[1], slots[2].tanh(), slots[3].sigmoid()
    past = state[2] + (f if cell == "slstm_exp" else logsigmoid(f))
    share, keep = (i - past).sigmoid(), (past - i).sigmoid()
    du = grad[1] + grad[0] * o
    dlead = du * (z - state[1]) * share * keep
    dpast = grad[2] * keep - dlead
    df = dpast if cell == "slstm_exp" else dpast * (-f).sigmoid()
    do = grad[0] * (state[1] + share * (z - state[1])) * o * (1 - o)
    dslots = [dlead + grad[2] * share, df, du * share * (1 - z * z), do]
    return torch.stack(dslots), torch.stack([torch.zeros_like(du), du * keep, dpast])


def _begin(state_SBHK: Tensor, empty_SBHK: Tensor, moves_BT: Tensor | None, t: int) -> Tensor:
    if moves_BT is None:
        return state_SBHK
    return torch.where((moves_BT[:, t] > 0)[:, None, None], empty_SBHK, state_SBHK)


def _wide(*tensors: Tensor) -> torch.dtype:
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def _refuse(pre_BTGHK: Tensor, weight_GHJK: Tensor, state_SBHK: Tensor, cell: str) -> None:
    if cell not in GATES:
        raise ConfigError(f"gated_loop: cell must be one of {', '.join(GATES)}, not {cell!r}")
    B, _, _, H, K = pre_BTGHK.shape
    wanted = (B, pre_BTGHK.shape[1], GATES[cell], H, K), (GATES[cell], H, K, K), (STATES[cell], B, H, K)
    for name, value, shape in zip(
        ("pre", "weight", "state"), (pre_BTGHK, weight_GHJK, state_SBHK), wanted, strict=True
    ):
        if tuple(value.shape) != shape:
            raise ConfigError(f"gated_loop: {name} of a {cell} must be {shape}, not {tuple(value.shape)}")
