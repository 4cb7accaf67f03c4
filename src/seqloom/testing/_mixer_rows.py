"""Checks that a mixer treats time and rows as it must: pieces, causality, padding, packing, other rows, trees."""

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout, roll
from seqloom.core.state import State
from seqloom.mixers._base import Mixer
from seqloom.testing._subject import (
    BOUND,
    CAPACITY,
    DTYPES,
    Finding,
    Subject,
    all_same,
    gradients,
    leaves,
    parameters,
    same,
    same_lengths,
)


def continuation(subject: Subject) -> None:
    """Whole = chunks = step by step: outputs, gradients (inputs, parameters, first state) and the last state."""
    if not subject.steps:
        return
    length, cuts = 13, ([0, 1, 5, 5, 13], list(range(14)))
    for dtype in DTYPES:
        mixer = subject.build(dtype)
        x_BTD = subject.inputs(2, length, dtype)
        plain_y_BTD = subject.call(mixer, x_BTD)[0]
        for capacity in (None, CAPACITY):
            fresh = mixer.initial_state(2, capacity=capacity)
            same("without a state and from an empty one", subject.go(mixer, x_BTD, fresh)[0], plain_y_BTD)
        start = subject.warm(mixer, 2, dtype)
        want = _run(subject, mixer, x_BTD, start, [0, length])
        for at in cuts:
            got = _run(subject, mixer, x_BTD, start, at)
            what = f"pieces {at[:6]} of the whole" if len(at) < length else "step by step"
            _same_run(what, got, want, mixer)


def lengths(subject: Subject) -> None:
    """Lengths around every block size, 0 and 1 among them: halves = whole, finite gradients, shapes kept."""
    for dtype in DTYPES if subject.full else DTYPES[:1]:
        mixer = subject.build(dtype)
        for length in subject.lengths():
            x_BTD = subject.inputs(2, length, dtype).transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
            y_BTD, none = subject.call(mixer, x_BTD)
            if y_BTD.shape != x_BTD.shape or none is not None:
                raise Finding(f"T = {length}: output {tuple(y_BTD.shape)}, state {none}; expected {tuple(x_BTD.shape)}")
            (slope_BTD,) = gradients([y_BTD], [x_BTD])
            if not bool(torch.isfinite(slope_BTD).all()):
                raise Finding(f"T = {length}: the gradient is not finite")
            alone_BTD = subject.call(mixer, x_BTD[1:].detach())[0]
            same(f"T = {length}, one row", alone_BTD, y_BTD[1:])
            if subject.steps:
                state = mixer.initial_state(2, capacity=max(length, 1))
                left_BTD, state = subject.go(mixer, x_BTD[:, : length // 2].detach(), state)
                right_BTD, state = subject.go(mixer, x_BTD[:, length // 2 :].detach(), state)
                same(f"T = {length} in halves", torch.cat([left_BTD, right_BTD], 1), y_BTD)
                if state.length_B.tolist() != [length] * 2:
                    raise Finding(f"T = {length}: the state says {state.length_B.tolist()}")


def blocks(subject: Subject) -> None:
    """Block sizes that only decide how fast it goes (fields called chunk) do not change what comes out."""
    names = [item.name for item in fields(subject.config) if item.name == "chunk" or item.name.endswith("_chunk")]
    for name in names:
        x_BTD = subject.inputs(2, 13)
        for size in (2, 5):
            other = Subject(replace(subject.config, **{name: size}), subject.width, device=subject.device)
            same(f"{name} = {size}", other.call(other.build(), x_BTD)[0], subject.call(subject.build(), x_BTD)[0])


def capacity(subject: Subject) -> None:
    """More positions than a state was made for are an error or right, never something else."""
    if not subject.steps:
        return
    mixer, x_BTD = subject.build(), subject.inputs(2, 7)
    want_BTD = subject.call(mixer, x_BTD)[0]
    for cuts in ((0, 7), (0, 3, 7), tuple(range(8))):
        state, pieces = mixer.initial_state(2, capacity=4), []
        try:
            for begin, end in pairwise(cuts):
                y_BTD, state = subject.go(mixer, x_BTD[:, begin:end], state)
                pieces.append(y_BTD)
        except ConfigError:
            continue
        same("beyond the capacity", torch.cat(pieces, 1), want_BTD)


def causality(subject: Subject) -> None:
    """No output depends on what follows it: by gradient, and by a large impulse (to rounding for FFTs)."""
    kind, length = subject.traits.causal, 13
    if kind not in ("exact", "fft"):
        return
    for dtype in DTYPES:
        mixer = subject.build(dtype)
        for start in subject.starts(mixer, 2, dtype):
            x_BTD = subject.inputs(2, length, dtype).requires_grad_()
            y_BTD = subject.call(mixer, x_BTD, start)[0]
            for column in (0, 4, 11):
                rng = torch.Generator().manual_seed(column)
                weight_BD = torch.randn(2, subject.width, generator=rng, dtype=torch.float64).to(x_BTD)
                (slope_BTD,) = torch.autograd.grad((y_BTD[:, column] * weight_BD).sum(), x_BTD, retain_graph=True)
                past, future = slope_BTD[:, : column + 1].abs().max(), slope_BTD[:, column + 1 :].abs().max()
                _no_leak(kind, f"the gradient of output {column} with respect to later inputs", future, past)
            for column in (1, 5, 12):
                struck_BTD = x_BTD.detach().clone()
                struck_BTD[:, column:] += 1e4
                moved_BTD = (subject.call(mixer, struck_BTD, start)[0] - y_BTD).detach().abs()
                what = f"the change before an impulse at {column}"
                _no_leak(kind, what, moved_BTD[:, :column].max(), moved_BTD[:, column:].max())


def padding(subject: Subject) -> None:
    """Pads on either side change no valid output, gradient or state, and come out as exactly 0."""
    lengths_B, length = torch.tensor([9, 4, 0, 1], device=subject.device), 9
    spans = [Span(row, 0, int(size), True) for row, size in enumerate(lengths_B)]
    for dtype in DTYPES:
        mixer = subject.build(dtype)
        for start in subject.starts(mixer, 4, dtype):
            layout = Layout(lengths_B=lengths_B)
            _check_rows(subject, mixer, length, start, layout, spans)
            _check_rows(subject, mixer, length, start, replace(layout, side="left"), spans)


def packing(subject: Subject) -> None:
    """Segments packed into rows = each of them alone, also with a carried state, empty rows and padding."""
    begins, stops, length = ([0, 4, 5], [6, 10], [], [0, 12], [0, 9]), (13, 11, 0, 13, 7), 13
    starts_BT = torch.zeros(len(begins), length, dtype=torch.bool, device=subject.device)
    spans = []
    for row, (at, stop) in enumerate(zip(begins, stops, strict=True)):
        starts_BT[row, at] = True
        edges = sorted({0, stop, *(column for column in at if column < stop)})
        edges = [0, 0] if stop == 0 else edges
        spans += [Span(row, a, b, a not in at) for a, b in pairwise(edges)]
    lengths_B = torch.tensor(stops, device=subject.device)
    for dtype in DTYPES:
        mixer = subject.build(dtype)
        for start in subject.starts(mixer, len(begins), dtype):
            layout = Layout(starts_BT=starts_BT, lengths_B=lengths_B)
            _check_rows(subject, mixer, length, start, layout, spans)
            moved_BT = roll(starts_BT, lengths_B - length)
            _check_rows(subject, mixer, length, start, replace(layout, side="left", starts_BT=moved_BT), spans)
            whole = starts_BT.clone()
            whole[2:, 3:] = False
            several = [span for span in spans if span.row == 0]
            several += [Span(1, 0, 6, True), Span(1, 6, 10, False), Span(1, 10, 13, False), Span(2, 0, 13, True)]
            several += [Span(row, 0, 13, False) for row in (3, 4)]
            _check_rows(subject, mixer, length, start, Layout(starts_BT=whole), several)


def positions(subject: Subject) -> None:
    """Positions that are written out mean what they mean when they are counted."""
    mixer, x_BTD = subject.build(), subject.inputs(2, 9)
    starts_BT = torch.zeros(2, 9, dtype=torch.bool, device=subject.device)
    starts_BT[1, 5] = True
    for layout in (PLAIN, Layout(starts_BT=starts_BT)):
        for start in subject.starts(mixer, 2, torch.float64):
            before_B = mixer.no_length(2) if start is None else start.length_B
            written = replace(layout, positions_BT=layout.where_BT(9, before_B))
            got, want = subject.call(mixer, x_BTD, start, written)[0], subject.call(mixer, x_BTD, start, layout)[0]
            same("with positions written out", got, want)


def batch(subject: Subject) -> None:
    """A row's outputs, gradients and state do not depend on the rows beside it, nor on their order."""
    for dtype in DTYPES:
        mixer = subject.build(dtype)
        for training in (False, True):
            if training and any(getattr(part, "p", 0) for part in mixer.modules()):
                continue  # dropout draws another mask for every row
            mixer.train(training)
            x_BTD = subject.inputs(3, 7, dtype).requires_grad_()
            y_BTD = subject.call(mixer, x_BTD)[0]
            (slope_BTD,) = gradients([y_BTD[1:2]], [x_BTD])
            alone_BTD = x_BTD[1:2].detach().requires_grad_()
            alone_y_BTD = subject.call(mixer, alone_BTD)[0]
            (alone_slope_BTD,) = gradients([alone_y_BTD], [alone_BTD])
            same("a row alone and among others", y_BTD[1:2], alone_y_BTD)
            same("its gradient", slope_BTD[1:2], alone_slope_BTD)
            if float(slope_BTD[::2].abs().max()) > 0:
                raise Finding("a row's output has a gradient with respect to another row")
            loud_BTD = torch.cat([x_BTD[2:] * 100, x_BTD[1:2]]).detach()
            same("a row beside a loud one", subject.call(mixer, loud_BTD)[0][1:], alone_y_BTD)


def tree(subject: Subject) -> None:
    """A token of a tree sees its ancestors alone: each path = that path as a sequence. Parts do not see each other."""
    if not subject.traits.tree:
        return
    parents = [-1, 0, 0, 1, 2, 4, -1]
    parents_BT = torch.tensor([parents, [-1, 0, 1, 2, 3, 4, 5]], device=subject.device)
    for dtype in DTYPES:
        mixer = subject.build(dtype)
        x_BTD = subject.inputs(2, len(parents), dtype)
        for start in subject.starts(mixer, 2, dtype):
            y_BTD = subject.call(mixer, x_BTD, start, Layout(parents_BT=parents_BT))[0]
            for row in range(2):
                state = None if start is None else start.select(torch.tensor([row], device=subject.device))
                for leaf in range(len(parents)):
                    path, at = [leaf], int(parents_BT[row, leaf])
                    while at >= 0:
                        path, at = [at, *path], int(parents_BT[row, at])
                    alone_BTD = subject.call(mixer, x_BTD[row : row + 1, path], state)[0]
                    same(f"tree token {leaf} of row {row}", y_BTD[row, leaf], alone_BTD[0, -1])
    _parts(subject)


def exchange(subject: Subject) -> None:
    """Two parts of the time axis, the state handed on between them = the whole, gradients included."""
    if subject.traits.sequence_comm not in ("state", "local"):
        return  # attention, reductions and halos need several processes: parallel/ tests them
    mixer = subject.build()
    names, weights = parameters(mixer)
    x_BTD = subject.inputs(2, 11).requires_grad_()
    want_BTD = subject.call(mixer, x_BTD)[0]
    wire: Any = _Wire()
    pieces = []
    for rank, (start, stop) in enumerate(((0, 4), (4, 4), (4, 11))):
        wire.rank = rank
        pieces.append(subject.call(mixer, x_BTD[:, start:stop], layout=Layout(exchange=wire))[0])
    got_BTD = torch.cat(pieces, 1)
    same("parts that hand the state on", got_BTD, want_BTD)
    into = [x_BTD, *weights]
    all_same("gradient of the parts", gradients([got_BTD], into), gradients([want_BTD], into), ["x", *names])


@dataclass(frozen=True)
class Span:
    """A segment of a row: its columns once padding is on the right, and whether it goes on from the row's state."""

    row: int
    begin: int
    end: int
    continues: bool


class _Wire:
    """The neighbours of one process after the other."""

    rank, size = 0, 3

    def __init__(self) -> None:
        self.state: State | None = None

    def receive(self, state: State) -> State:
        return state if self.state is None else self.state

    def send(self, state: State) -> None:
        self.state = state


def _run(
    subject: Subject, mixer: Mixer, x_BTD: Tensor, start: State, cuts: list[int]
) -> tuple[Tensor, Tensor, State, list[Tensor]]:
    """Outputs, probe, last state and gradients of a sequence that is run in pieces."""
    state, found = leaves(start)
    x_BTD, pieces = x_BTD.detach().requires_grad_(), []
    assert state is not None
    for begin, end in pairwise(cuts):
        y_BTD, state = subject.go(mixer, x_BTD[:, begin:end], state)
        pieces.append(y_BTD)
    y_BTD, probe_BTD = torch.cat(pieces, 1), subject.probe(mixer, state, x_BTD.dtype)
    return y_BTD, probe_BTD, state, gradients([y_BTD, probe_BTD], [x_BTD, *found, *parameters(mixer)[1]])


def _same_run(what: str, got: tuple, want: tuple, mixer: Mixer) -> None:
    same(f"{what}: outputs", got[0], want[0])
    same(f"{what}: what the last state leads to", got[1], want[1])
    same_lengths(what, got[2], want[2])
    states = len(want[3]) - 1 - len(parameters(mixer)[0])
    names = ["x", *(f"state {n}" for n in range(states)), *parameters(mixer)[0]]
    all_same(f"{what}: gradient", got[3], want[3], names)


def _check_rows(
    subject: Subject, mixer: Mixer, length: int, start: State | None, layout: Layout, spans: list[Span]
) -> None:
    """Compare one call on laid-out rows with a call a segment; pads hold large values."""
    rows = max(span.row for span in spans) + 1
    start = None if start is None else start.select(torch.arange(rows, device=subject.device))
    layout = layout if layout.starts_BT is None else replace(layout, starts_BT=layout.starts_BT[:rows])
    dtype = next(mixer.parameters()).dtype
    names, weights = parameters(mixer)
    right_BTD = subject.inputs(rows, length, dtype)
    used_BT = torch.zeros(rows, length, dtype=torch.bool, device=subject.device)
    for span in spans:
        used_BT[span.row, span.begin : span.end] = True
    right_BTD = torch.where(used_BT[..., None], right_BTD, 30 * right_BTD + 30).requires_grad_()
    state, state_leaves = leaves(start)
    alone_BTD, ends = _alone(subject, mixer, right_BTD, state, spans)
    into = [right_BTD, *state_leaves, *weights]
    want = gradients([alone_BTD, *([] if state is None else [_probe_all(subject, mixer, ends, dtype)])], into)

    left = layout.side == "left" and layout.lengths_B is not None
    shift_B = (
        layout.lengths_B - length if left and layout.lengths_B is not None else torch.zeros(rows, dtype=torch.long)
    )
    x_BTD = roll(right_BTD, shift_B.to(subject.device))
    y_BTD, after = subject.call(mixer, x_BTD, state, layout)
    y_BTD = roll(y_BTD, -shift_B.to(subject.device))
    what = f"{layout.side}-padded rows" + ("" if layout.starts_BT is None else " with packed segments")
    what += "" if state is None else ", from a state"
    if bool((y_BTD[~used_BT] != 0).any()):
        raise Finding(f"{what}: a pad comes out as {float(y_BTD[~used_BT].abs().max())}, not as 0")
    same(f"{what}: outputs", y_BTD, alone_BTD)
    outputs = [y_BTD]
    if after is not None:
        probe_BTD, alone_probe_BTD = subject.probe(mixer, after, dtype), _probe_all(subject, mixer, ends, dtype)
        same(f"{what}: what the state leads to", probe_BTD, alone_probe_BTD)
        lengths = [int(ends[row].length_B[0]) for row in range(rows)]
        if after.length_B.tolist() != lengths:
            raise Finding(f"{what}: length_B is {after.length_B.tolist()}, not {lengths}")
        outputs.append(probe_BTD)
    labels = ["x", *(f"state {n}" for n in range(len(state_leaves))), *names]
    all_same(f"{what}: gradient", gradients(outputs, into), want, labels)


def _alone(
    subject: Subject, mixer: Mixer, x_BTD: Tensor, state: State | None, spans: list[Span]
) -> tuple[Tensor, dict[int, State]]:
    """Each segment in a call of its own; the outputs in their places and each row's last state."""
    y_BTD, ends = torch.zeros_like(x_BTD), {}
    for span in spans:
        x_1TD = x_BTD[span.row : span.row + 1, span.begin : span.end]
        begin = None
        if state is not None:
            row = torch.tensor([span.row], device=subject.device)
            begin = state.select(row) if span.continues else mixer.initial_state(1, capacity=CAPACITY)
        y_1TD, after = subject.call(mixer, x_1TD, begin)
        index = torch.arange(span.begin, span.end, device=subject.device)
        y_BTD = y_BTD.index_put((torch.full_like(index, span.row), index), y_1TD[0])
        if after is not None:
            ends[span.row] = after
    return y_BTD, ends


def _probe_all(subject: Subject, mixer: Mixer, ends: dict[int, State], dtype: torch.dtype) -> Tensor:
    return torch.cat([subject.probe(mixer, ends[row], dtype) for row in sorted(ends)])


def _no_leak(kind: str, what: str, leak: Tensor, signal: Tensor) -> None:
    """Exactly nothing, or within the rounding of a transform over the loudest value."""
    if kind == "exact":
        if float(leak) != 0:
            raise Finding(f"{what} is {float(leak):.3g}, not 0")
        return
    bound = 0.01 * BOUND[leak.dtype] * max(float(signal), 1e-3)  # 1e-6 in float32: a few roundings of an FFT
    if not float(leak) <= bound:
        raise Finding(f"{what} is {float(leak):.3g}, bound {bound:.3g}")


def _parts(subject: Subject) -> None:
    """What stands in one part moves no output of another part, but moves the ordinary tokens after both."""
    mixer, x_BTD = subject.build(), subject.inputs(1, 7)
    layout = Layout(parts_BT=torch.tensor([[0, 1, 1, 2, 2, 0, 0]], device=subject.device))
    changed_BTD = x_BTD.clone()
    changed_BTD[:, 1:3] += 1
    before_BTD, after_BTD = (subject.call(mixer, x, None, layout)[0] for x in (x_BTD, changed_BTD))
    same("a part beside a changed one", after_BTD[:, 3:5], before_BTD[:, 3:5])
    if torch.equal(after_BTD[:, 5:], before_BTD[:, 5:]):
        raise Finding("ordinary tokens do not see the parts before them")
