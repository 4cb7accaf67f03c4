"""The residual stream that every neural model shares.

    x <- x + drop(mixer(norm(x)) * gate)        x <- x + drop(mlp(norm(x)))        y = norm(x)

Shapes: B batch, T time, D width. Hybrids are a pattern: ``pattern("s4d*3,attention")`` is repeated over the layers.
Source: pre-norm residual blocks: Xiong et al., "On layer normalization in the transformer architecture", 2020,
arXiv:2002.04745.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, silu

from seqloom.core import discovery
from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout
from seqloom.core.state import State, States
from seqloom.layers.linear import Linear
from seqloom.layers.mlp import MLP
from seqloom.layers.norm import Norm
from seqloom.mixers._base import Mixer


def pattern(text: str) -> tuple[Mixer.Config, ...]:
    """Read ``"s4d*3,attention"`` as mixer configs with their default options, one a layer."""
    found: list[Mixer.Config] = []
    for piece in text.split(","):
        name, star, times = (part.strip() for part in piece.partition("*"))
        if star and not (times.isdecimal() and int(times) > 0):
            raise ConfigError(f"{piece.strip()!r}: what follows * is a positive number of layers")
        kind: Any = discovery.get("mixers", name)
        found += [kind.Config()] * (int(times) if star else 1)
    return tuple(found)


def levelled(mixers: tuple[Mixer.Config, ...], layers: int, width: int, parameters: int) -> MLP.Config:
    """The channel mixer with which mixers and channel mixers of all layers have so many parameters, to a hidden unit.

    ConfigError where the mixers alone have more.
    """
    given = sum(p.numel() for layer in range(layers) for p in mixers[layer % len(mixers)].build(width).parameters())
    unit = sum(p.numel() for p in MLP(width, MLP.Config(hidden=1 / width, multiple=1)).parameters())
    hidden = round((parameters - given) / (layers * unit))
    if hidden < 1:
        raise ConfigError(f"the mixers alone have {given:,} parameters: {parameters:,} are too few for a comparison")
    return MLP.Config(hidden=hidden / width, multiple=1)


class _Block(nn.Module):
    """One layer: a mixer and a channel mixer, each behind its norm and a residual connection."""

    def __init__(self, width: int, mixer: Mixer.Config, config: "Backbone.Config") -> None:
        """Build the parts of one layer."""
        super().__init__()
        self.owns_residual = mixer.traits().owns_residual
        self.dropout, self.wide = config.dropout, config.residual_float32
        self.mixer_norm = config.norm.build(width)
        self.mixer: Mixer = mixer.build(width)
        self.gate = Linear(width, width, bias=False) if config.gated else None
        self.mlp_norm = None if config.mlp is None else config.norm.build(width)
        self.mlp = None if config.mlp is None else config.mlp.build(width)

    def forward(
        self, x_BTD: Tensor, state: State | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, State | None]:
        """The residual stream after this layer, and the mixer's state."""
        normed = self.mixer_norm(x_BTD)
        y_BTD, state = self.mixer(normed, state, layout=layout, context=context)
        if self.gate is not None:
            y_BTD = y_BTD * silu(self.gate(normed))
        x_BTD = y_BTD if self.owns_residual else self.add(x_BTD, y_BTD)
        if self.mlp is not None and self.mlp_norm is not None:
            x_BTD = self.add(x_BTD, self.mlp(self.mlp_norm(x_BTD)))
        return x_BTD, state

    def add(self, x_BTD: Tensor, y_BTD: Tensor) -> Tensor:
        """Residual connection in the stream's own dtype."""
        if self.dropout and self.training:
            y_BTD = dropout(y_BTD, self.dropout)
        return x_BTD + y_BTD.to(x_BTD.dtype) if self.wide else x_BTD.to(y_BTD.dtype) + y_BTD


class Backbone(Component, nn.Module):
    """Layers of mixers and channel mixers over a residual stream (B, T, D)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Shape of the stack."""

        width: int = 64
        """Width D of the residual stream."""
        layers: int = 2
        """Number of layers."""
        mixers: tuple[Mixer.Config, ...] = ()
        """One config a layer, repeated in turn over the layers; empty = attention."""
        mlp: MLP.Config | None = field(default_factory=MLP.Config)
        """Channel mixer of each layer; None leaves it out."""
        norm: Norm.Config = field(default_factory=Norm.Config)
        """Normalisation before each part and at the end."""
        gated: bool = False
        """Multiply each mixer's output by silu(W x)."""
        dropout: float = 0.0
        """Rate on what enters the residual stream."""
        residual_float32: bool = True
        """Keep the residual stream in float32 under autocast."""

    def __init__(self, config: Config | None = None) -> None:
        """Raises ConfigError where a pattern does not fit the number of layers."""
        super().__init__()
        self.config = config = config or self.Config()
        mixers = config.mixers or pattern("attention")
        if config.layers < 1 or len(mixers) > config.layers:
            raise ConfigError(f"{config.layers} layers cannot hold a pattern of {len(mixers)} mixers")
        self.blocks = nn.ModuleList(
            _Block(config.width, mixers[layer % len(mixers)], config) for layer in range(config.layers)
        )
        self.norm: Norm = config.norm.build(config.width)
        self.shrink_outputs()

    def shrink_outputs(self) -> None:
        """Divide each MLP's last map by sqrt(2 layers), so that the stream's variance does not grow with depth.

        Source: Radford et al., "Language models are unsupervised multitask learners", 2019, section 2.3.
        """
        scale = (2 * self.config.layers) ** -0.5
        with torch.no_grad():
            for block in self.layers:
                if block.mlp is not None:
                    block.mlp.down.weight.mul_(scale)

    @property
    def layers(self) -> "tuple[_Block, ...]":
        """The blocks, with their type."""
        return tuple(block for block in self.blocks if isinstance(block, _Block))

    @property
    def causal(self) -> bool:
        """True where no mixer sees the future."""
        return all(block.mixer.can.causal in ("exact", "fft") for block in self.layers)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> States:
        """The state of every layer before the first position."""
        layers = {str(i): block.mixer.initial_state(batch, capacity=capacity) for i, block in enumerate(self.layers)}
        return States(length_B=self.layers[0].mixer.no_length(batch), layers=layers, extras={})

    def forward(
        self, x_BTD: Tensor, state: States | None = None, *, layout: Layout = PLAIN, context: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], States | None]:
        """The residual stream after the embedding and after each layer, then normalised; and the new state."""
        hidden, layers = [x_BTD], {}
        for number, block in enumerate(self.layers):
            before = None if state is None else state.layers[str(number)]
            attends = context is not None and block.mixer.can.context
            x_BTD, after = block(x_BTD, before, layout, context if attends else None)
            hidden.append(x_BTD)
            if after is not None:
                layers[str(number)] = after
        hidden[-1] = self.norm(x_BTD)
        if state is None:
            return tuple(hidden), None
        length_B = layout.advance(state.length_B, x_BTD.shape[1])
        return tuple(hidden), replace(state, layers=layers, length_B=length_B)
