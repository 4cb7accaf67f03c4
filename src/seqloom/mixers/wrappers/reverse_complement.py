"""Any mixer on both strands of DNA with one set of weights, so that it does not matter which strand was sequenced.

    x = [u; w]      y = [f(u); flip(f(flip(w)))]      flip turns time and channels around, within each sequence

    rc(x) = flip(x) over time and all D channels      y(rc(x)) = rc(y(x)), whatever f is

The first half of the channels carries one strand, the second half the other one, backwards: an embedding e gives
[e(s); flip(e(complement of s, backwards))]. The order of the channels stands for the complement, so that flipping it
exchanges the halves too. Norms and channel mixers around must be equivariant as well if a whole model is to be.

Shapes: B batch, T time, D width (even), H = D / 2 channels of a strand.
Source: Schiff et al., "Caduceus: bi-directional equivariant long-range DNA sequence modeling", 2024, arXiv:2403.03234,
section 3.2; Schmidinger et al., "Bio-xLSTM", 2024, arXiv:2411.04165, section 3 (parameter sharing).
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.recurrent.gru import GRU
from seqloom.mixers.wrappers import _mirror


class ReverseComplement(Mixer):
    """A mixer of half the width for both strands, equivariant to the exchange of them; it keeps no state."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Which mixer."""

        mixer: Mixer.Config = field(default_factory=GRU.Config)
        """Any mixer, causal or not; its width is half of the model's. By default the GRU, the cheapest one here."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """The second strand is read from its end, so nothing can go on; the rest as the mixer inside."""
        return _mirror.wrapped_traits(config.mixer.traits())

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return cls.Config(), cls.Config(mixer=GRU.Config(hidden=6))

    def __init__(self, width: int, config: Config | None = None) -> None:
        """Raises ConfigError where the width cannot be halved."""
        super().__init__(width, config)
        if width % 2:
            raise ConfigError(f"reverse_complement: the width holds two strands and must be even, not {width}")
        self.mixer: Mixer = self.config.mixer.build(width // 2)

    def param_groups(self) -> list[ParamGroup]:
        """Those of the mixer inside."""
        return _mirror.named_groups("mixer", self.mixer)

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, None]:
        """Both strands in one call of the mixer."""
        first_BTH, second_BTH = x_BTD.chunk(2, -1)
        strands_BTH = torch.cat([first_BTH, _mirror.flip(second_BTH, layout.lengths_B).flip(-1)])
        y_BTH, _ = self.mixer(strands_BTH, layout=_mirror.twice(layout))
        first_BTH, second_BTH = y_BTH.chunk(2)
        return torch.cat([first_BTH, _mirror.flip(second_BTH, layout.lengths_B).flip(-1)], -1), None

    def flops(self, length: int) -> int:
        """The mixer inside, once a strand, kernels that one call makes for both included."""
        return 2 * self.mixer.flops(length)

    def state_bytes(self, length: int) -> int:
        """What the mixer inside would hold, once a strand."""
        return 2 * self.mixer.state_bytes(length)
