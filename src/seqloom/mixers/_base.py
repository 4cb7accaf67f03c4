"""The one interface of every mixer: state in, state out.

    y_BTD, state = mixer(x_BTD, state, layout=layout)

``forward`` is written once, here. It checks what the layout asks against what the mixer declares, brings rows into
one canonical form (padding on the right, segments unfolded where a mixer cannot reset), records states, and writes
zeros at pads. A mixer writes ``mix``, which sees T >= 1, right padding, and only the fields that it declares.

A state comes back where one was given: training passes none and pays for none, prefill passes ``initial_state(B)``.

Shapes: B batch, T time, S segments, D width. A mixer has no norm, residual or MLP of its own: the backbone adds them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout, Segments, fold, roll, segments, unfold
from seqloom.core.protocols import Exchange
from seqloom.core.state import State


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a mixer can honestly do with its options; everything else raises, by name."""

    causal: Literal["exact", "fft", "selection", "no"]
    """exact; to rounding (FFT); a selection that sees the future; or not causal."""
    step: Literal["constant", "window", "history", "none"]
    """How the state grows with time; none = cannot continue from a state."""
    rollback: Literal["free", "recorded", "checkpoint", "none"] = "recorded"
    """How a state goes back: by its length, by recorded points, by replay, or not at all."""
    sequence_comm: str = "state"
    """local, attention, state, halo(k), reduce, gather or forbidden: what a split along time must exchange."""
    bidirectional: Literal["native", "wrapped", "no"] = "no"
    """Whether these options let a position see what follows it."""
    packing: Literal["native", "unfold"] = "unfold"
    """Whether ``mix`` honours segment starts itself or sees one row a segment."""
    records: Literal["native", "split"] = "split"
    """Whether ``mix`` fills the trail itself or is called piece by piece."""
    tree: bool = False
    """Honours token trees (parents) and order-free parts."""
    context: bool = False
    """Attends to a second sequence."""
    length_bound: int | None = None
    """Longest sequence that the parameters reach, None = any."""
    lti: bool = False
    """Linear and time-invariant: has ``kernel(T)``."""
    stochastic: bool = False
    """Draws random numbers in evaluation too."""
    owns_residual: bool = False
    """Adds its own residual connection."""
    known_gaps: Mapping[str, str] = field(default_factory=dict)
    """Contract check -> why these options fail it; shown in the docs."""


@dataclass(frozen=True)
class ParamGroup:
    """Parameters (by name within the mixer) that need optimiser settings of their own."""

    names: tuple[str, ...]
    lr: float | None = None
    """Cap of their learning rate: min(lr of the run, this)."""
    weight_decay: float = 0.0


class Mixer(Component, nn.Module):
    """Base of every sequence mixer (B, T, D) -> (B, T, D)."""

    State: ClassVar[type[State]] = State
    same_as: ClassVar[str] = ""
    """Another mixer that the default options amount to: a comparison of everything leaves this one out."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a mixer."""

        def traits(self) -> Traits:
            """What the mixer can do with these options."""
            return self.owner.traits(self)  # type: ignore[attr-defined]

    config: Config

    def __init__(self, width: int, config: Config | None = None) -> None:
        """Keep the width and the options; ``Mixer(width)`` takes the default ones."""
        super().__init__()
        if width < 1:
            raise ConfigError(f"width must be at least 1, not {width}")
        self.width = width
        self.config = config if config is not None else type(self).Config()
        self.can = self.config.traits()  # every step asks several times

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """What the mixer can do with these options."""
        raise TypeError(f"{cls.__name__} declares no traits")

    @classmethod
    def grid(cls) -> "Iterable[Mixer.Config]":
        """Option sets that the contract test covers, the default one first."""
        return (cls.Config(),)

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, State | None]:
        """The mixer's mathematics, written once for whole sequences, chunks and single steps.

        Sees T >= 1 and rows padded to the right; outputs at pads are ignored, the state must not move there. Without
        ``state`` it starts from nothing and returns None as the state.
        """
        raise TypeError(f"{type(self).__name__} does not mix")

    def initial_state(self, batch: int, *, capacity: int | None = None) -> State:
        """The state before the first position; ``capacity`` is the most positions that will come, where it is known."""
        raise ConfigError(f"{type(self).__name__} cannot continue from a state (traits.step is none)")

    def param_groups(self) -> list[ParamGroup]:
        """Parameters with a learning rate or weight decay of their own."""
        return []

    def flops(self, length: int) -> int:
        """Floating-point operations of one row of this length, forward; one multiply-add is two."""
        raise TypeError(f"{type(self).__name__} has no operation count")

    def state_bytes(self, length: int) -> int:
        """Bytes of one row's state after this many positions, in the parameters' dtype."""
        raise TypeError(f"{type(self).__name__} has no state size")

    def forward(
        self, x_BTD: Tensor, state: State | None = None, *, layout: Layout = PLAIN, context: Tensor | None = None
    ) -> tuple[Tensor, State | None]:
        """Mix a whole sequence, a chunk or a step.

        Args:
            x_BTD: inputs; T may be 0.
            state: what was consumed before; None = nothing, and no state is wanted back.
            layout: how the rows lie in time.
            context: another sequence (B, S, D), for mixers that attend to one.

        Raises:
            ConfigError: the layout asks for something that these options cannot do.
        """
        self._check(x_BTD, state, layout, context)
        if layout.exchange is not None and self.can.sequence_comm == "state":
            return self._handed_on(x_BTD, state, replace(layout, exchange=None), context, layout.exchange)
        if x_BTD.shape[0] == 0 or x_BTD.shape[1] == 0:
            return x_BTD, state
        if state is not None and state.trail is not None:
            state = replace(state, trail=None)  # it tells of earlier calls, and of packed rows' earlier segments
        if layout.side == "left" and layout.lengths_B is not None:
            y_BTD, state = self._from_left(x_BTD, state, layout, context)
        else:
            y_BTD, state = self._canonical(x_BTD, state, layout, context)
        valid_BT = layout.valid_BT(x_BTD.shape[1])
        return (y_BTD if valid_BT is None else y_BTD.masked_fill(~valid_BT[..., None], 0)), state

    def no_length(self, batch: int) -> Tensor:
        """``length_B`` of a new state."""
        device = next(self.parameters()).device
        return torch.zeros(batch, dtype=torch.long, device=device)

    def _check(self, x_BTD: Tensor, state: State | None, layout: Layout, context: Tensor | None) -> None:
        traits, name = self.can, type(self).__name__
        if x_BTD.ndim != 3 or x_BTD.shape[2] != self.width:
            raise ConfigError(f"{name} expects (batch, time, {self.width}), not {tuple(x_BTD.shape)}")
        if state is not None and traits.step == "none":
            raise ConfigError(f"{name} cannot continue from a state with these options")
        if (layout.parents_BT is not None or layout.parts_BT is not None) and not traits.tree:
            raise ConfigError(f"{name} cannot honour layout.parents_BT or parts_BT: its state is one chain")
        if layout.states_at is not None and (state is None or traits.rollback not in ("recorded", "free")):
            raise ConfigError(f"{name} cannot record states (layout.states_at) without a state that goes back")
        if layout.exchange is not None and traits.sequence_comm == "forbidden":
            raise ConfigError(f"{name} cannot be split along time (layout.exchange)")
        if context is not None and not traits.context:
            raise ConfigError(f"{name} does not attend to a second sequence")
        if traits.length_bound is not None and x_BTD.shape[1] > traits.length_bound:
            raise ConfigError(
                f"{name} reaches {traits.length_bound} positions with these options, not {x_BTD.shape[1]}"
            )

    def _handed_on(
        self, x_BTD: Tensor, state: State | None, layout: Layout, context: Tensor | None, exchange: Exchange
    ) -> tuple[Tensor, State | None]:
        """Go on from the left neighbour's state and hand the new one to the right."""
        start = self.initial_state(len(x_BTD)) if state is None else state
        y_BTD, after = self.forward(x_BTD, exchange.receive(start), layout=layout, context=context)
        if after is not None:
            exchange.send(after)
        return y_BTD, None if state is None else after

    def _from_left(
        self, x_BTD: Tensor, state: State | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, State | None]:
        """Turn left padding into right padding, mix, and turn back."""
        if layout.lengths_B is None or layout.parents_BT is not None:
            raise ConfigError("a token tree is padded to the right")
        shift_B = x_BTD.shape[1] - layout.lengths_B
        names = ("starts_BT", "positions_BT", "parts_BT")
        moved: dict[str, Any] = {n: roll(v, shift_B) for n in names if (v := getattr(layout, n)) is not None}
        y_BTD, state = self._canonical(roll(x_BTD, shift_B), state, replace(layout, side="right", **moved), context)
        return roll(y_BTD, -shift_B), state

    def _canonical(
        self, x_BTD: Tensor, state: State | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, State | None]:
        traits = self.can
        if layout.starts_BT is not None and (valid_BT := layout.valid_BT(x_BTD.shape[1])) is not None:
            layout = replace(layout, starts_BT=layout.starts_BT & valid_BT)  # what a pad says starts nothing
        if layout.states_at is not None and traits.records == "split" and traits.rollback == "recorded":
            return self._recorded(x_BTD, state, layout, context)
        if layout.starts_BT is not None and traits.packing == "unfold":
            return self._unfolded(x_BTD, state, layout, context)
        return self.mix(x_BTD, state, layout, context)

    def _unfolded(
        self, x_BTD: Tensor, state: State | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, State | None]:
        """Give ``mix`` one row a segment; the first segment of a row may go on from the row's state."""
        length = x_BTD.shape[1]
        at = segments(layout, length)
        x_SLD = unfold(x_BTD, at)
        positions = None if layout.positions_BT is None else unfold(layout.positions_BT, at)
        plain = Layout(lengths_B=at.lengths_S, positions_BT=positions, exchange=layout.exchange)
        fed = None if state is None else self._segment_states(state, at)
        context = None if context is None else context[at.row_S]
        y_SLD, after = self.mix(x_SLD, fed, plain, context) if x_SLD.shape[1] else (x_SLD, fed)
        return fold(y_SLD, at, (len(x_BTD), length)), None if after is None else after.select(at.last_B)

    def _segment_states(self, state: State, at: Segments) -> State:
        """The row's state where a segment goes on from it, an empty one elsewhere."""
        return state.select(at.row_S).where(at.continues_S, self.initial_state(len(at.row_S)))

    def _recorded(
        self, x_BTD: Tensor, state: State | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, State | None]:
        """Call ``mix`` piece by piece and stack the states between the pieces into a trail."""
        length, pieces, points = x_BTD.shape[1], [], []
        if state is None or layout.states_at is None:
            raise ConfigError("recording needs a state to start from")
        record = set(layout.states_at)
        if not record <= set(range(length + 1)):
            raise ConfigError(f"states_at must lie in 0..{length}, not {sorted(record)}")
        points = [state] if 0 in record else []
        cuts = sorted({*record, length} - {0})
        for start, stop in zip([0, *cuts[:-1]], cuts, strict=True):
            piece = layout.cut(start, stop)
            y_BTD, state = self._canonical(x_BTD[:, start:stop], state, piece, context)
            pieces.append(y_BTD)
            if state is not None and stop in record:
                points.append(state)
        if state is None:
            raise ConfigError(f"{type(self).__name__} returned no state")
        return torch.cat(pieces, 1), state.recorded(points)
