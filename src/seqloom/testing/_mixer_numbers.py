"""Checks of a mixer's numbers: derivatives, narrow dtypes, extremes, initial scale, costs, compilation, refusals."""

import json
from dataclasses import fields

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

from seqloom.core.component import Value
from seqloom.core.counting import count_macs
from seqloom.core.layout import Layout
from seqloom.core.state import State
from seqloom.mixers._base import Mixer
from seqloom.testing._subject import (
    BOUND,
    CAPACITY,
    Finding,
    Subject,
    all_same,
    finite,
    gradients,
    leaves,
    parameters,
    refused,
    same,
)

OUTPUT_STD = (0.01, 3.0)
"""Standard deviation of the outputs for normal inputs; means over many positions are small, nothing may be large."""
TREND = 1.25
"""The most that it may grow from 128 to 512 positions."""
EXTREME = 60.0
ONE_BY_ONE = 1000
"""Derivatives that are checked one by one; of more, a random direction through all of them."""


def gradcheck(subject: Subject) -> None:
    """Derivatives = finite differences in float64: inputs, parameters and the first state."""
    mixer = subject.build()
    state, found = leaves(subject.warm(mixer, 2, torch.float64) if subject.steps else None)
    names, weights = parameters(mixer)
    x_BTD = subject.inputs(2, 4).requires_grad_()

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        y_BTD, after = subject.call(mixer, values[0], state)
        return (y_BTD,) if after is None else (y_BTD, subject.probe(mixer, after, torch.float64))

    run(x_BTD)
    for name, value in zip(names, weights, strict=True):
        if value.is_complex():
            raise Finding(f"the parameter {name} is complex: store real pairs")
    inputs = (x_BTD, *found, *weights)
    fast = not subject.full or sum(value.numel() for value in inputs) > ONE_BY_ONE
    try:
        torch.autograd.gradcheck(run, inputs, fast_mode=fast, atol=1e-6, rtol=1e-5)
    except GradcheckError as error:
        raise Finding(f"gradients differ from finite differences: {error}") from error
    slopes = gradients(run(x_BTD), weights)
    dead = [name for name, slope in zip(names, slopes, strict=True) if not bool((slope != 0).any())]
    if dead:
        raise Finding(f"no gradient reaches {', '.join(dead)}")


def bfloat16(subject: Subject) -> None:
    """Autocast and bfloat16 parameters stay near float32, and a state keeps its dtype."""
    mixer, x_BTD = subject.build(torch.float32), subject.inputs(2, 13, torch.float32)
    want_BTD = subject.call(mixer, x_BTD)[0]
    with torch.autocast(subject.device, dtype=torch.bfloat16):
        got_BTD = subject.call(mixer, x_BTD)[0]
        _near("autocast", got_BTD, want_BTD)
        if subject.steps:
            pieces, state = [], mixer.initial_state(2, capacity=CAPACITY)
            for piece_BTD in (x_BTD[:, :6], x_BTD[:, 6:7], x_BTD[:, 7:]):
                y_BTD, state = subject.go(mixer, piece_BTD, state)
                pieces.append(y_BTD)
            _near("autocast in three chunks", torch.cat(pieces, 1), want_BTD)
    narrow = subject.build(torch.float32).to(torch.bfloat16)
    twin = subject.build(torch.float32).to(torch.bfloat16).to(torch.float32)  # the same rounded parameters
    x_BTD = x_BTD.bfloat16()
    got_BTD, want_BTD = subject.call(narrow, x_BTD)[0], subject.call(twin, x_BTD.float())[0]
    if got_BTD.dtype != torch.bfloat16:
        raise Finding(f"bfloat16 inputs give {got_BTD.dtype}")
    _near("bfloat16 parameters", got_BTD, want_BTD)
    finite("gradients in bfloat16", *gradients([got_BTD], parameters(narrow)[1]))
    if subject.steps:
        start = narrow.initial_state(2, capacity=CAPACITY)
        pieces_BTD, after = subject.go(narrow, x_BTD[:, :6], start)
        rest_BTD, after = subject.go(narrow, x_BTD[:, 6:], after)
        _near("bfloat16 in two chunks", torch.cat([pieces_BTD, rest_BTD], 1), want_BTD)
        for name, value in after.tensors().items():
            if value.dtype != start.tensors()[name].dtype:
                raise Finding(f"{name} of the state turns from {start.tensors()[name].dtype} into {value.dtype}")


def extremes(subject: Subject) -> None:
    """Inputs and parameters that drive gates to ±60: all finite, and steps still equal the whole."""
    for name, push in (("inputs", 1.0), ("positive gates", 2.0), ("negative gates", 3.0), ("weights", 4.0)):
        for dtype in (torch.float32, torch.float64):
            mixer = subject.build(dtype)
            _push(mixer, push)
            x_BTD = subject.inputs(2, 13, dtype)
            x_BTD = (EXTREME * x_BTD.sign() if push == 1.0 else x_BTD).requires_grad_()
            y_BTD = subject.call(mixer, x_BTD)[0]
            finite(f"outputs with extreme {name} in {dtype}", y_BTD)
            slopes = gradients([y_BTD], [x_BTD, *parameters(mixer)[1]])
            finite(f"gradients with extreme {name} in {dtype}", *slopes)
            if subject.steps:
                state, pieces = mixer.initial_state(2, capacity=CAPACITY), []
                for column in range(13):
                    piece_BTD, state = subject.go(mixer, x_BTD[:, column : column + 1].detach(), state)
                    pieces.append(piece_BTD)
                finite(f"steps with extreme {name} in {dtype}", *pieces)
                if dtype == torch.float64:
                    scale = 1e3 * float(y_BTD.detach().abs().max())  # saturated gates cancel: a thousandth is lost
                    same(f"steps with extreme {name}", torch.cat(pieces, 1), y_BTD, scale)


def initial_scale(subject: Subject) -> None:
    """At initialisation normal inputs give outputs of a sound size that do not grow with the length."""
    mixer = subject.build(torch.float32)
    bound = subject.traits.length_bound or 512
    spread = []
    with torch.no_grad():
        for length in (min(128, bound // 2), min(512, bound)):
            y_BTD = subject.call(mixer, subject.inputs(8, length, torch.float32))[0]
            spread.append(float(y_BTD[:, -max(length // 4, 1) :].std()))
    low, high = OUTPUT_STD
    if not all(low <= value <= high for value in spread):
        raise Finding(f"outputs at initialisation have standard deviation {spread}, not within {OUTPUT_STD}")
    if spread[1] > TREND * spread[0]:
        raise Finding(f"outputs at initialisation grow with the length: standard deviation {spread}")


def determinism(subject: Subject) -> None:
    """The seed decides the parameters and the outputs; another seed gives others; saving and loading keeps both."""
    x_BTD = subject.inputs(2, 9, torch.float32)
    first, again, other = (subject.build(torch.float32, seed) for seed in (3, 3, 4))
    y_BTD, moved = subject.call(first, x_BTD)[0], False
    for name, value in first.state_dict().items():
        if not torch.equal(value, again.state_dict()[name]):
            raise Finding(f"{name} differs between two builds with one seed")
        moved = moved or not torch.equal(value, other.state_dict()[name])
    if not moved:
        raise Finding("another seed gives the same parameters")
    if not torch.equal(y_BTD, subject.call(again, x_BTD)[0]) and not subject.traits.stochastic:
        raise Finding("two builds with one seed give different outputs")
    other.load_state_dict(first.state_dict())
    if not torch.equal(y_BTD, subject.call(other, x_BTD)[0]) and not subject.traits.stochastic:
        raise Finding("loading state_dict() does not bring the outputs back: something is kept outside of it")


def compilation(subject: Subject) -> None:
    """Compiles without graph breaks, forward and backward, with and without a state."""
    mixer = subject.build(torch.float32)
    x_BTD = subject.inputs(2, 5, torch.float32).requires_grad_()
    context = subject.inputs(1, 4, torch.float32, seed=9).expand(2, -1, -1) if subject.traits.context else None
    into = [x_BTD, *parameters(mixer)[1]]
    torch._dynamo.reset()
    compiled = torch.compile(mixer, backend="aot_eager", fullgraph=True, dynamic=False)
    try:
        y_BTD = compiled(x_BTD, context=context)[0]
        found = gradients([y_BTD], into)
        stepped = None
        if subject.steps:
            with torch.no_grad():
                state = mixer.initial_state(2, capacity=CAPACITY)
                stepped = compiled(x_BTD[:, :1], state.fork(), context=context)[0]
    except torch._dynamo.exc.TorchDynamoException as error:
        raise Finding(f"torch.compile: {str(error).strip().splitlines()[0]}") from error
    finally:
        torch._dynamo.reset()
    want_BTD = subject.call(mixer, x_BTD)[0]
    same("compiled", y_BTD, want_BTD)
    all_same("gradient, compiled", found, gradients([want_BTD], into), ["x", *parameters(mixer)[0]])
    if stepped is not None:
        same("a compiled step", stepped, want_BTD[:, :1])


def flops(subject: Subject) -> None:
    """The formula of the operations = what is counted while it runs, within 2 %."""
    mixer = subject.build()
    for length in (1, 13, 32):
        x_BTD = subject.inputs(1, length)
        with torch.no_grad():
            counted = count_macs(lambda x: subject.call(mixer, x)[0], x_BTD).flops
        said = mixer.flops(length)
        if abs(counted - said) > 0.02 * max(counted, said):
            raise Finding(f"T = {length}: {counted} operations are counted, flops() says {said}")


def refusals(subject: Subject) -> None:
    """What the traits exclude raises a ConfigError that names it; nothing is silently ignored."""
    mixer, x_BTD = subject.build(), subject.inputs(2, 4)
    traits, device = subject.traits, subject.device
    start = subject.warm(mixer, 2, torch.float64) if subject.steps else None
    chain_BT = torch.tensor([[-1, 0, 1, 2]] * 2, device=device)
    if not traits.tree:
        for name in ("parents_BT", "parts_BT"):
            refused(name, lambda name=name: mixer(x_BTD, start, layout=Layout(**{name: chain_BT + 1})), name)
    refused("states_at without a state", lambda: mixer(x_BTD, layout=Layout(states_at=(2,))), "states_at")
    if start is not None and traits.rollback == "recorded":
        refused("states_at = 9 of 4", lambda: mixer(x_BTD, start.fork(), layout=Layout(states_at=(9,))), "states_at")
    if start is None:
        refused("an initial state", lambda: mixer.initial_state(2))
        refused("a state", lambda: mixer(x_BTD, State(length_B=mixer.no_length(2))), "state")
    if not traits.context:
        refused("a second sequence", lambda: mixer(x_BTD, context=x_BTD), "second sequence", "context")
    if traits.sequence_comm == "forbidden":
        refused("exchange", lambda: mixer(x_BTD, layout=Layout(exchange=object())), "exchange")
    if traits.length_bound is not None:
        long_BTD = subject.inputs(1, traits.length_bound + 1)
        refused("a sequence beyond the bound", lambda: mixer(long_BTD), str(traits.length_bound))
    refused("a wrong width", lambda: mixer(x_BTD[..., 1:]), str(subject.width))
    refused("width 0", lambda: subject.config.build(0), "width")


def declaration(subject: Subject) -> None:
    """Options survive JSON, have at most 12 documented fields; groups and gaps name what exists."""
    config, mixer = subject.config, subject.build()
    if type(mixer) is not config.owner:
        raise Finding(f"the options build a {type(mixer).__name__}, not a {config.owner.__name__}")
    if _is_part(config) and Value.from_json(json.loads(json.dumps(config.to_json(), allow_nan=False))) != config:
        raise Finding("the options do not come back from JSON as they were")
    if len(fields(config)) > 12:
        raise Finding(f"the options have {len(fields(config))} fields, at most 12 can be read")
    names = [name for group in mixer.param_groups() for name in group.names]
    known = dict(mixer.named_parameters())
    if unknown := [name for name in names if name not in known]:
        raise Finding(f"param_groups names {', '.join(unknown)}, which is no parameter")
    if len(set(names)) < len(names):
        raise Finding("param_groups names a parameter twice")


def linearity(subject: Subject) -> None:
    """A mixer that says it is linear and time-invariant is both."""
    if not subject.traits.lti:
        return
    mixer = subject.build()
    x_BTD, z_BTD = subject.inputs(2, 9), subject.inputs(2, 9, seed=2)
    base_BTD = subject.call(mixer, torch.zeros_like(x_BTD))[0]
    parts = [subject.call(mixer, v)[0] - base_BTD for v in (x_BTD, z_BTD, x_BTD - 2 * z_BTD)]
    same("a sum of inputs", parts[2], parts[0] - 2 * parts[1])
    if subject.traits.causal != "no":
        late_BTD = torch.cat([torch.zeros_like(x_BTD[:, :3]), x_BTD], 1)
        same("a shifted input", subject.call(mixer, late_BTD)[0][:, 3:], subject.call(mixer, x_BTD)[0])


def _near(what: str, got: Tensor, want: Tensor) -> None:
    """Close in the mean: single elements of a sum may cancel."""
    finite(what, got)
    got, want = got.detach().float(), want.detach()
    error = float((got - want).norm() / want.norm().clamp_min(1e-6))
    if not error <= BOUND[torch.bfloat16]:
        raise Finding(f"{what}: relative error {error:.3g}, bound {BOUND[torch.bfloat16]} against float32")


def _push(mixer: Mixer, how: float) -> None:
    """Biases to ±60, or weights so that products reach 60; step sizes and decays (param_groups) move by ±5."""
    if how == 1.0:
        return
    special = {name for group in mixer.param_groups() for name in group.names}
    sign = {2.0: 1.0, 3.0: -1.0, 4.0: 0.0}[how]
    with torch.no_grad():
        for name, value in mixer.named_parameters():
            if name in special:
                value.add_(5 * sign)
            elif value.ndim == 1 and sign:
                value.fill_(EXTREME * sign)
            elif value.ndim > 1 and not sign:
                value.mul_(EXTREME / value.abs().max().clamp_min(1e-3))


def _is_part(config: Mixer.Config) -> bool:
    return type(config).__module__.startswith("seqloom.mixers.")
