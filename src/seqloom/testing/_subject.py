"""A mixer under test: how it is built, fed and compared.

Every comparison is relative to the largest value of what is expected, within a bound that follows from the dtype:
float64 shows the mathematics, float32 the operators that people run.

Shapes: B batch, T time, D width, R rows picked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout
from seqloom.core.state import State
from seqloom.mixers._base import Mixer, Traits

DTYPES = (torch.float64, torch.float32)
BOUND = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 2e-2}
"""Largest difference over the largest expected value; sums of a few hundred terms, forward and backward."""
CAPACITY = 64


class Finding(AssertionError):
    """A check found that a mixer breaks the contract."""


@dataclass(frozen=True)
class Subject:
    """One mixer with one set of options."""

    config: Mixer.Config
    width: int = 8
    full: bool = True
    device: str = "cpu"

    @cached_property
    def traits(self) -> Traits:
        """What it declares."""
        return self.config.traits()

    @property
    def steps(self) -> bool:
        """Whether it can go on from a state."""
        return self.traits.step != "none"

    def build(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> Mixer:
        """The mixer, the same numbers in every dtype."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.config.build(self.width).to(self.device, dtype).eval()

    def inputs(self, rows: int, length: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
        """Normal inputs (B, T, D)."""
        rng = torch.Generator().manual_seed(seed)
        x_BTD = torch.randn(rows, length, self.width, generator=rng, dtype=torch.float64)
        return x_BTD.to(self.device, dtype)

    def call(
        self, mixer: Mixer, x_BTD: Tensor, state: State | None = None, layout: Layout = PLAIN
    ) -> tuple[Tensor, State | None]:
        """Run it; one that attends to a second sequence gets the same one for every row.

        The state is forked first: a call may write into what it is given.
        """
        context = self.inputs(1, 4, x_BTD.dtype, seed=9).expand(len(x_BTD), -1, -1) if self.traits.context else None
        return mixer(x_BTD, None if state is None else state.fork(), layout=layout, context=context)

    def go(self, mixer: Mixer, x_BTD: Tensor, state: State, layout: Layout = PLAIN) -> tuple[Tensor, State]:
        """Run it from a state."""
        y_BTD, after = self.call(mixer, x_BTD, state, layout)
        if after is None:
            raise Finding("a call with a state gave none back")
        return y_BTD, after

    def warm(self, mixer: Mixer, rows: int, dtype: torch.dtype, length: int = 3) -> State:
        """A state that has seen something."""
        x_BTD = self.inputs(rows, length, dtype, seed=5)
        return self.go(mixer, x_BTD, mixer.initial_state(rows, capacity=CAPACITY))[1].detach()

    def probe(self, mixer: Mixer, state: State, dtype: torch.dtype) -> Tensor:
        """What a state means: the outputs that it leads to, whatever its buffers hold."""
        return self.go(mixer, self.inputs(1, 5, dtype, seed=6).expand(state.batch, -1, -1), state)[0]

    def starts(self, mixer: Mixer, rows: int, dtype: torch.dtype) -> list[State | None]:
        """Nothing, and a state that has seen something where the mixer can go on from one."""
        return [None, self.warm(mixer, rows, dtype)] if self.steps else [None]

    def lengths(self) -> list[int]:
        """0, 1, 2, a prime, and one less, as much and one more than each block size that the options name."""
        words = ("chunk", "conv", "window", "block", "kernel")
        named = {item.name: getattr(self.config, item.name) for item in fields(self.config)}
        sizes = {
            size
            for name, size in named.items()
            if any(word in name for word in words) and type(size) is int and 0 < size <= 256
        }
        around = {near for size in sizes for near in ((size - 1, size, size + 1) if self.full else (size + 1,))}
        wanted = {0, 1, 2, 13, *around} if self.full else {0, 1, 5, *around}
        bound = self.traits.length_bound
        return sorted(length for length in wanted if bound is None or length <= bound)


def leaves(state: State | None) -> tuple[State | None, list[Tensor]]:
    """The state as leaves of a graph, and those of its tensors that can have a gradient."""
    found: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().clone()
        if tensor.is_floating_point() or tensor.is_complex():
            found.append(tensor.requires_grad_())
        return tensor

    return None if state is None else state.map(leaf), found


def gradients(outputs: Sequence[Tensor], into: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of a fixed random weighing of the outputs; zeros where nothing depends."""
    rng = torch.Generator().manual_seed(11)
    total = torch.zeros((), dtype=torch.float64)
    for output in outputs:
        weight = torch.randn(output.shape, generator=rng, dtype=torch.float64).to(output)
        total = total + (output * weight).sum().cpu().to(torch.float64)
    if not total.requires_grad:
        return [torch.zeros_like(leaf) for leaf in into]
    found = torch.autograd.grad(total, list(into), allow_unused=True)
    return [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in zip(found, into, strict=True)]


def same(what: str, got: Tensor, want: Tensor, scale: float | None = None) -> None:
    """Fail unless two tensors agree within the dtype's bound."""
    if got.shape != want.shape or got.dtype != want.dtype:
        raise Finding(f"{what}: {got.dtype} of shape {tuple(got.shape)}, not {want.dtype} of shape {tuple(want.shape)}")
    if not got.numel():
        return
    got, want = got.detach(), want.detach()
    largest = float(want.abs().max()) if scale is None else scale
    bound = BOUND[want.dtype] * max(largest, 1e-3)
    worst = float((got - want).abs().max())
    if not worst <= bound:  # NaN is worse than any bound
        raise Finding(f"{what}: differs by {worst:.3g}, bound {bound:.3g} in {want.dtype}")


def all_same(what: str, got: Sequence[Tensor], want: Sequence[Tensor], names: Sequence[str]) -> None:
    """``same`` for a list of tensors with names, each measured by the largest of all where it is tiny itself."""
    largest = max((float(value.detach().abs().max()) for value in want if value.numel()), default=0.0)
    for name, left, right in zip(names, got, want, strict=True):
        own = float(right.detach().abs().max()) if right.numel() else 0.0
        same(f"{what}, {name}", left, right, max(own, 0.01 * largest))


def same_lengths(what: str, got: State, want: State) -> None:
    """Fail unless two states have consumed the same numbers of positions."""
    if got.length_B.tolist() != want.length_B.tolist():
        raise Finding(f"{what}: length_B is {got.length_B.tolist()}, not {want.length_B.tolist()}")


def finite(what: str, *tensors: Tensor) -> None:
    """Fail on NaN and infinities."""
    for tensor in tensors:
        if not bool(torch.isfinite(tensor).all()):
            raise Finding(f"{what}: not finite")


def refused(what: str, call: Callable[[], Any], *words: str) -> None:
    """Fail unless the call raises a ConfigError that names one of the words."""
    try:
        call()
    except ConfigError as error:
        if words and not any(word in str(error) for word in words):
            raise Finding(f"{what} is refused, but the message names none of {', '.join(words)}: {error}") from error
        return
    raise Finding(f"{what} is accepted, though the traits say that it cannot be honoured")


def parameters(mixer: Mixer) -> tuple[list[str], list[Tensor]]:
    """Names and tensors of the trainable parameters."""
    named = [(name, value) for name, value in mixer.named_parameters() if value.requires_grad]
    return [name for name, _ in named], [value for _, value in named]
