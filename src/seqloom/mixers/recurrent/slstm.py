"""sLSTM: an LSTM with exponential gates and a normaliser, whose heads remember each for themselves.

    s = silu(conv(x))       i~, f~ = blocks of s + R h_{t-1} + b       z~, o~ = blocks of x + R h_{t-1} + b
    c_t = f c_{t-1} + i tanh(z~)    n_t = f n_{t-1} + i    h_t = sigmoid(o~) c_t / n_t       y = norm(h)
    i = exp(i~)    f = sigmoid(f~) or exp(f~)

Maps and recurrent weights are block-diagonal, one block a head; the norm is a layer norm a head, without a bias. The
recurrence is nonlinear, so that it can track what a linear one cannot (parity, counting modulo a number), and so it
runs one step after the other. It is kept as c / n and log n (``kernels/gated_loop``): a row that has seen nothing is
log n = -inf by itself, whatever the other rows have seen.

In the authors' layer the module that is called ``fgate`` feeds the slot of the input gate and ``igate`` that of the
forget gate; here names are what they do. The recurrent weights start at 0, the forget biases of a head's units at
5 - 12 (j / (K - 1))^(0.3 + 1.3 depth), as published: some units remember for hundreds of steps, some for one.

Shapes: B batch, T time, D width, H heads, K units of a head, G gates (i, f, z, o), L inputs the convolution keeps.
Source: Beck et al., "xLSTM: extended long short-term memory", 2024, arXiv:2405.04517, section 2.2, figure 10 and
appendix A; the start of the biases: the authors' code.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.gated_loop import NEVER, gated_loop
from seqloom.layers.block_linear import BlockLinear
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.attention._decayed import Taps

GATES = 4


class SLSTM(Mixer):
    """Scalar memory with exponential gates; its state is three vectors a row and the convolution's inputs."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """After the last valid position, float32 or wider."""

        h_BHK: Tensor
        cell_BHK: Tensor
        """c / n."""
        weight_BHK: Tensor
        """log n; -inf before anything was seen."""
        inputs_BLD: Tensor
        """What the convolution still sees; L = 0 where there is none."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of the sLSTM."""

        heads: int = 4
        """Heads; must divide the width."""
        conv: int = 4
        """Taps of the convolution before the input and forget gates; 1 = none."""
        forget: Literal["sigmoid", "exp"] = "sigmoid"
        """Forget gate; exp may exceed 1."""
        depth: float = 0.0
        """Place in the stack, from 0 (first) to 1 (last), which bends the forget biases' range at the start."""
        eps: float = 1e-5
        """Added to the variance in the norm."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Exact, constant state, starts a segment by itself."""
        return Traits(causal="exact", step="constant", rollback="recorded", sequence_comm="state", packing="native")

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return cls.Config(), cls.Config(heads=1, conv=1, forget="exp"), cls.Config(heads=2, conv=3, depth=0.5)

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        if options.heads < 1 or width % options.heads:
            raise ConfigError(f"slstm: heads must divide the width {width}, and {options.heads} does not")
        if options.conv < 1 or options.eps <= 0 or not 0 <= options.depth <= 1:
            raise ConfigError(f"slstm: conv is at least 1, eps positive and depth within [0, 1], not {options}")
        if options.forget not in ("sigmoid", "exp"):
            raise ConfigError(f"slstm: forget is 'sigmoid' or 'exp', not {options.forget!r}")
        self.units = K = width // options.heads
        self.conv = Taps(width, options.conv) if options.conv > 1 else None
        self.input, self.forget, self.cell, self.shown = (
            BlockLinear(width, options.heads, bias=False) for _ in range(GATES)
        )
        self.recurrent = nn.Parameter(torch.zeros(GATES, options.heads, K, K))
        self.bias = nn.Parameter(torch.zeros(GATES, options.heads, K))
        self.norm_weight = nn.Parameter(torch.ones(width))
        self._start()

    @property
    def wide(self) -> torch.dtype:
        """Dtype of gates, states and norm."""
        return torch.promote_types(self.bias.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Nothing seen."""
        new, H, taps = self.bias.new_full, self.config.heads, self.config.conv
        h_BHK, cell_BHK, weight_BHK = (
            new((batch, H, self.units), value, dtype=self.wide) for value in (0.0, 0.0, NEVER)
        )
        inputs_BLD = new((batch, taps - 1, self.width), 0.0, dtype=self.wide)
        return self.State(
            h_BHK=h_BHK,
            cell_BHK=cell_BHK,
            weight_BHK=weight_BHK,
            inputs_BLD=inputs_BLD,
            length_B=self.no_length(batch),
        )

    def param_groups(self) -> list[ParamGroup]:
        """Biases of the gates get no weight decay: they are time scales."""
        return [ParamGroup(names=("bias",), weight_decay=0.0)]

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Make the gates' inputs, run the cells over the columns, norm."""
        length = x_BTD.shape[1]
        before: Any = self.initial_state(len(x_BTD)) if state is None else state
        valid_BT = layout.valid_BT(length)
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        s_BTD, inputs_BLD = x_BTD, before.inputs_BLD
        if self.conv is not None:
            s_BTD, inputs_BLD = self.conv(x_BTD, None if state is None else inputs_BLD, layout)
        pre = [self.input(s_BTD), self.forget(s_BTD), self.cell(x_BTD), self.shown(x_BTD)]
        with torch.autocast(x_BTD.device.type, enabled=False):
            pre_BTGHK = torch.stack(pre, 2).to(self.wide).unflatten(-1, (self.config.heads, -1))
            first_SBHK = torch.stack([before.h_BHK, before.cell_BHK, before.weight_BHK])
            weight_GHJK, bias_GHK = self.recurrent.to(self.wide), self.bias.to(self.wide)
            kind = "slstm" if self.config.forget == "sigmoid" else "slstm_exp"
            moves_BT = _moves(layout, valid_BT, len(x_BTD))
            states_SBTHK = gated_loop(pre_BTGHK, weight_GHJK, first_SBHK, bias_GHK, moves_BT, kind)
            h_BTHK = layer_norm(states_SBTHK[0], (self.units,), eps=self.config.eps)
            y_BTD = (h_BTHK.flatten(2) * self.norm_weight.to(self.wide)).to(x_BTD.dtype)
        if state is None:
            return y_BTD, None
        h_BHK, cell_BHK, weight_BHK = (states_SBTHK[:, :, -1] if length else first_SBHK).unbind()
        return y_BTD, replace(
            before,
            h_BHK=h_BHK,
            cell_BHK=cell_BHK,
            weight_BHK=weight_BHK,
            inputs_BLD=inputs_BLD,
            length_B=layout.advance(before.length_B, length),
            trail=None,
        )

    def flops(self, length: int) -> int:
        """The maps of the inputs and of the states, and the convolution."""
        taps = self.config.conv if self.conv is not None else 0
        return 2 * length * (2 * GATES * self.width * self.units + self.width * taps)

    def state_bytes(self, length: int) -> int:
        """Three vectors, the inputs that the convolution keeps, and the length."""
        return (3 + self.config.conv - 1) * self.width * self.wide.itemsize + 8

    def _start(self) -> None:
        """Narrow maps, no recurrence yet, and forget gates of many time scales."""
        for part in (self.input, self.forget, self.cell, self.shown):
            nn.init.normal_(part.weight, std=(2 / (5 * self.width)) ** 0.5)
        place_K = torch.arange(self.units) / max(self.units - 1, 1)
        with torch.no_grad():
            self.bias[1] = 5 - 12 * place_K ** (0.3 + 1.3 * self.config.depth)


def _moves(layout: Layout, valid_BT: Tensor | None, batch: int) -> Tensor | None:
    """What each column does: 0 steps, 1 steps from an empty state (a segment starts), -1 holds (a pad)."""
    segments_BT, moves_BT = layout.segments_BT(), None
    if segments_BT is not None:
        before_BT = torch.cat([torch.zeros_like(segments_BT[:, :1]), segments_BT[:, :-1]], 1)
        moves_BT = (segments_BT != before_BT[:, : segments_BT.shape[1]]).to(torch.int8).expand(batch, -1)
    if valid_BT is None:
        return moves_BT
    held_BT = -(~valid_BT).to(torch.int8)
    return held_BT if moves_BT is None else torch.where(valid_BT, moves_BT, held_BT)
