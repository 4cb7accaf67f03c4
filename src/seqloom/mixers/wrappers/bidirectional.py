"""Any causal mixer, run over each sequence from both ends.

    y = f(x) + flip(g(flip(x)))          add;        g = f where weights are shared
    y = W [f(x); flip(g(flip(x)))]       concat
    y = flip(f(flip(x)))                 backward;   every other layer of a stack that alternates directions

flip turns the valid positions of one segment around: pads stay behind, and no direction crosses a boundary. In ``add``
the position itself is read by both directions.

Shapes: B batch, T time, D width.
Source: Schuster and Paliwal, "Bidirectional recurrent neural networks", 1997, IEEE Transactions on Signal Processing
45(11); Schmidinger et al., "Bio-xLSTM", 2024, arXiv:2411.04165, section 3 (shared weights, alternating directions).
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.layers.linear import Linear
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.recurrent.gru import GRU
from seqloom.mixers.wrappers import _mirror

MODES = ("add", "concat", "backward")


class Bidirectional(Mixer):
    """A causal mixer in both directions of time; it keeps no state."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Which mixer, and how its two directions meet."""

        mixer: Mixer.Config = field(default_factory=GRU.Config)
        """The causal mixer; by default the GRU, the cheapest one here that needs no option."""
        mode: Literal["add", "concat", "backward"] = "add"
        """add: the sum of both directions; concat: a linear map of both; backward: only from the end."""
        shared: bool = True
        """Both directions have the same weights; False gives the second one its own."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Sees everything, cannot go on; the rest as the mixer inside."""
        return _mirror.wrapped_traits(config.mixer.traits())

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return cls.Config(), cls.Config(mode="concat", shared=False), cls.Config(mode="backward")

    def __init__(self, width: int, config: Config | None = None) -> None:
        """Raises ConfigError where the mixer inside sees the future already."""
        super().__init__(width, config)
        options = self.config
        if options.mode not in MODES:
            raise ConfigError(f"bidirectional: mode is one of {', '.join(MODES)}, not {options.mode!r}")
        inside, name = options.mixer.traits(), options.mixer.owner.__name__
        if inside.causal == "no":
            raise ConfigError(f"bidirectional: mixer {name} sees what follows already; give it causal options")
        if inside.owns_residual:
            raise ConfigError(f"bidirectional: mixer {name} adds its own residual, which two directions would double")
        self.mixer: Mixer = options.mixer.build(width)
        both = options.mode != "backward"
        self.backwards: Mixer | None = options.mixer.build(width) if both and not options.shared else None
        self.output = Linear(2 * width, width) if options.mode == "concat" else None

    def param_groups(self) -> list[ParamGroup]:
        """Those of the mixer, for each direction that has weights."""
        second = [] if self.backwards is None else _mirror.named_groups("backwards", self.backwards)
        return _mirror.named_groups("mixer", self.mixer) + second

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, None]:
        """Run the mixer on the rows and on the flipped rows, and flip what comes back."""
        lengths_B = layout.lengths_B
        if self.config.mode == "backward":
            back_BTD = _mirror.flip(x_BTD, lengths_B)
            y_BTD, _ = self.mixer(back_BTD, layout=_mirror.flipped(layout))
            return _mirror.flip(y_BTD, lengths_B), None
        forwards_BTD, backwards_BTD = self._directions(x_BTD, layout)
        backwards_BTD = _mirror.flip(backwards_BTD, lengths_B)
        if self.output is None:
            return forwards_BTD + backwards_BTD, None
        return self.output(torch.cat([forwards_BTD, backwards_BTD], -1)), None

    def flops(self, length: int) -> int:
        """The mixer once a direction, kernels that one call makes for both included; and the map of both."""
        directions = 1 if self.config.mode == "backward" else 2
        joined = 0 if self.output is None else 4 * length * self.width**2
        return directions * self.mixer.flops(length) + joined

    def state_bytes(self, length: int) -> int:
        """What the mixer inside would hold, once a direction."""
        return (1 if self.config.mode == "backward" else 2) * self.mixer.state_bytes(length)

    def _directions(self, x_BTD: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Outputs in each direction's own order; one call where they share weights."""
        back_BTD = _mirror.flip(x_BTD, layout.lengths_B)
        if self.backwards is not None:
            forwards_BTD, _ = self.mixer(x_BTD, layout=layout)
            backwards_BTD, _ = self.backwards(back_BTD, layout=_mirror.flipped(layout))
            return forwards_BTD, backwards_BTD
        both_BTD, _ = self.mixer(torch.cat([x_BTD, back_BTD]), layout=_mirror.twice(layout))
        forwards_BTD, backwards_BTD = both_BTD.chunk(2)
        return forwards_BTD, backwards_BTD
