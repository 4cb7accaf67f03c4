"""Checks of a mixer's state: reordering, forking, going back, its bytes, and that nothing is kept elsewhere."""

import torch
from torch import Tensor

from seqloom.core.layout import Layout
from seqloom.core.state import State
from seqloom.mixers._base import Mixer
from seqloom.testing._subject import (
    CAPACITY,
    DTYPES,
    Finding,
    Subject,
    refused,
    same,
    same_lengths,
)


def select(subject: Subject) -> None:
    """Rows of a state reordered, repeated and left out = those rows from scratch."""
    if not subject.steps:
        return
    for dtype in DTYPES:
        mixer = subject.build(dtype)
        x_BTD, rows_R = subject.inputs(3, 9, dtype), torch.tensor([2, 0, 2, 1, 1], device=subject.device)
        for kept_R in (rows_R, rows_R[:1], rows_R[:0]):
            state = subject.go(mixer, x_BTD[:, :6], mixer.initial_state(3, capacity=CAPACITY))[1]
            y_RTD, state = subject.go(mixer, x_BTD[kept_R, 6:], state.select(kept_R))
            want = _scratch(subject, mixer, x_BTD[kept_R])
            same("rows picked from a state", y_RTD, subject.call(mixer, x_BTD[kept_R])[0][:, 6:])
            same("what they lead to", subject.probe(mixer, state, dtype), subject.probe(mixer, want, dtype))
            same_lengths("rows picked from a state", state, want)


def fork(subject: Subject) -> None:
    """Two continuations of one state do not touch each other, and a call leaves its state alone unless it says so."""
    if not subject.steps:
        return
    mixer = subject.build()
    state = subject.warm(mixer, 2, torch.float64)
    copy = state.fork()
    left_BTD, right_BTD = subject.inputs(2, 5, seed=2), subject.inputs(2, 5, seed=3)
    want_BTD = subject.go(mixer, right_BTD, copy)[0]
    context = subject.inputs(1, 4, seed=9).expand(2, -1, -1) if subject.traits.context else None
    branch = state.fork()
    mixer(left_BTD, branch, context=context)  # not through subject.go: it would fork by itself
    same("a second continuation of a forked state", mixer(right_BTD, state.fork(), context=context)[0], want_BTD)
    if not state.in_place:
        mixer(left_BTD, state, context=context)
        for name, value in state.tensors().items():
            if not torch.equal(value, copy.tensors()[name]):
                raise Finding(f"a call wrote into {name} of the state it was given, but in_place is False")
    if any(t.requires_grad for t in subject.warm(mixer, 2, torch.float64).detach().tensors().values()):
        raise Finding("detach() leaves a gradient")


def rollback(subject: Subject) -> None:
    """Going back = from scratch, a different way for every row; what was not recorded is refused."""
    if not subject.steps:
        return
    kind = subject.traits.rollback
    for dtype in DTYPES:
        mixer = subject.build(dtype)
        if kind == "recorded":
            _recorded(subject, mixer, dtype)
        elif kind == "free":
            _free(subject, mixer, dtype)
    mixer = subject.build()
    if kind in ("none", "checkpoint"):
        state, x_BTD = subject.warm(mixer, 2, torch.float64), subject.inputs(2, 4)
        refused("states_at", lambda: subject.call(mixer, x_BTD, state, Layout(states_at=(2,))), "states_at")
    if kind == "none":
        after, one_B = subject.warm(mixer, 2, torch.float64), torch.ones(2, dtype=torch.long, device=subject.device)
        refused("rollback", lambda: after.rollback(one_B))


def state_bytes(subject: Subject) -> None:
    """The formula of the state's size = what the state holds, and a constant state stays constant."""
    if not subject.steps:
        return
    mixer = subject.build(torch.float32)
    sizes = []
    for length in (1, 5, 13, 40):
        state = subject.go(mixer, subject.inputs(3, length, torch.float32), mixer.initial_state(3, capacity=length))[1]
        sizes.append(state.nbytes)
        if state.nbytes != 3 * mixer.state_bytes(length):
            raise Finding(
                f"after {length} positions a row's state holds {state.nbytes / 3:g} bytes, "
                f"state_bytes says {mixer.state_bytes(length)}"
            )
    if subject.traits.step == "constant" and len(set(sizes)) > 1:
        raise Finding(f"the state grows ({sizes} bytes), though traits.step is constant")


def purity(subject: Subject) -> None:
    """Nothing is remembered on the module: a call changes no buffer and does not disturb the next."""
    mixer = subject.build()
    kept = {name: value.clone() for name, value in mixer.state_dict().items()}
    known = _held(mixer)
    x_BTD, other_BTD = subject.inputs(2, 9), subject.inputs(3, 5, seed=4)
    first_BTD = subject.call(mixer, x_BTD)[0]
    again_BTD = subject.call(mixer, x_BTD)[0]
    for start in subject.starts(mixer, 3, torch.float64):
        subject.call(mixer, other_BTD, start)
    if not subject.traits.stochastic:
        same("the same call again", again_BTD, first_BTD)
        same("the same call after others", subject.call(mixer, x_BTD)[0], first_BTD)
    for name, value in mixer.state_dict().items():
        if not torch.equal(value, kept[name]):
            raise Finding(f"a call changed {name} of the module")
    if new := _held(mixer) - known:
        raise Finding(f"a call left {', '.join(sorted(new))} on the module")


def _held(mixer: Mixer) -> set[str]:
    """Names of tensors and states that lie on the module beside its parameters and buffers."""
    return {name for name, value in vars(mixer).items() if isinstance(value, Tensor | State)}


def _scratch(subject: Subject, mixer: Mixer, x_BTD: Tensor) -> State:
    return subject.go(mixer, x_BTD, mixer.initial_state(len(x_BTD), capacity=CAPACITY))[1]


def _recorded(subject: Subject, mixer: Mixer, dtype: torch.dtype) -> None:
    """Plain, right-padded and packed rows, each back to another recorded point."""
    x_BTD, points, device = subject.inputs(5, 9, dtype), (2, 5, 7), subject.device
    lengths_B = torch.tensor([9, 9, 6, 9, 6], device=device)
    starts_BT = torch.zeros(5, 9, dtype=torch.bool, device=device)
    starts_BT[1, 4] = True
    begin_B = torch.tensor([0, 4, 0, 0, 0], device=device)
    for layout in (Layout(), Layout(lengths_B=lengths_B), Layout(lengths_B=lengths_B, starts_BT=starts_BT)):
        packed = layout.starts_BT is not None
        before = subject.warm(mixer, 5, dtype)
        plain_BTD = subject.call(mixer, x_BTD, before, layout)[0]
        record = Layout(lengths_B=layout.lengths_B, starts_BT=layout.starts_BT, states_at=points)
        y_BTD, state = subject.go(mixer, x_BTD, before, record)
        same("outputs while recording", y_BTD, plain_BTD)
        stop_B = lengths_B if layout.lengths_B is not None else torch.full_like(lengths_B, 9)
        goal_B = torch.tensor([2, 7, 5, 9, 7], device=device)  # a shorter row stays at its end
        back = state.rollback(stop_B - goal_B.minimum(stop_B))
        for row in range(5):
            begin = int(begin_B[row]) if packed else 0
            fed = mixer.initial_state(1, capacity=CAPACITY) if begin else before.select(torch.tensor([row]).to(device))
            want = subject.go(mixer, x_BTD[row : row + 1, begin : int(goal_B.minimum(stop_B)[row])], fed)[1]
            got = back.select(torch.tensor([row], device=device))
            same(f"row {row} gone back", subject.probe(mixer, got, dtype), subject.probe(mixer, want, dtype))
            same_lengths(f"row {row} gone back", got, want)
    refused("rollback to a point that was not recorded", lambda: state.rollback(torch.ones_like(lengths_B)))
    refused("rollback without a trail", lambda: subject.warm(mixer, 5, dtype).rollback(torch.ones_like(lengths_B)))


def _free(subject: Subject, mixer: Mixer, dtype: torch.dtype) -> None:
    """By any number of positions, after plain and after padded rows."""
    x_BTD = subject.inputs(3, 9, dtype)
    back_B = torch.tensor([0, 1, 4], device=subject.device)
    for lengths in ([9, 9, 9], [9, 6, 5]):
        layout = Layout() if len(set(lengths)) == 1 else Layout(lengths_B=torch.tensor(lengths, device=subject.device))
        before = subject.warm(mixer, 3, dtype)
        state = subject.go(mixer, x_BTD, before, layout)[1].rollback(back_B)
        for row in range(3):
            one = torch.tensor([row], device=subject.device)
            want = subject.go(mixer, x_BTD[one, : lengths[row] - int(back_B[row])], before.select(one))[1]
            got = state.select(one)
            same(f"row {row} gone back", subject.probe(mixer, got, dtype), subject.probe(mixer, want, dtype))
            same_lengths(f"row {row} gone back", got, want)
