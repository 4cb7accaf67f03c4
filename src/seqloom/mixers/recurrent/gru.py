"""GRU: one state vector, two gates.

    r, z = sigmoid(W_rz x_t + U_rz h_{t-1} + b_rz)
    n = tanh(W_n x_t + b_n + r * (U_n h_{t-1} + s))       (torch's form: the reset comes after the product)
    h_t = n + z * (h_{t-1} - n)

A whole sequence is one call of torch's operator, in training on a CPU of ``_gru_scan``; a step is two products.

Shapes: B batch, T time, D width, H hidden, G = 3H gates in the order r, z, n.
Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, arXiv:1406.1078, section 2.3;
the reset after the product as in cuDNN and torch.nn.GRU.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.recurrent import _cells
from seqloom.mixers.recurrent._gru_scan import Scan


class GRU(Mixer):
    """Gated recurrent unit; its state is one vector a row."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """Output after the last valid position."""

        h_BH: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of the GRU."""

        hidden: int = 0
        """Width of the state; 0 = the width, and then there is no output projection."""
        update_bias: float = 0.0
        """Bias of the update gate at initialisation; above 0 an untrained unit remembers longer."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Exact, constant state."""
        return Traits(causal="exact", step="constant", rollback="recorded", sequence_comm="state")

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return cls.Config(), cls.Config(hidden=12, update_bias=1.0)

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        self.hidden = H = _cells.hidden_width(self.config.hidden, width)
        self.input_weight = _cells.uniform(3 * H, width, H)
        self.state_weight = _cells.uniform(3 * H, H, H)
        self.bias = nn.Parameter(torch.zeros(3 * H))
        self.reset_bias = nn.Parameter(torch.zeros(H))  # the s above: inside the reset, so not one with b_n
        with torch.no_grad():
            self.bias[H : 2 * H] = self.config.update_bias
        self.output = nn.Identity() if width == H else nn.Linear(H, width, bias=False)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> State:
        """Zeros."""
        zeros_BH = self.bias.new_zeros(batch, self.hidden, dtype=_cells.wide(self.bias.dtype))
        return self.State(h_BH=zeros_BH, length_B=self.no_length(batch))

    def mix(
        self, x_BTD: Tensor, state: BaseState | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, BaseState | None]:
        """Run the unit over the columns; the state is the output at the last valid one."""
        length = x_BTD.shape[1]
        before: Any = self.initial_state(len(x_BTD)) if state is None else state
        with torch.autocast(x_BTD.device.type, enabled=False):
            run = self._step if length == 1 else self._sequence
            y_BTH = run(x_BTD.to(before.h_BH.dtype), before.h_BH)
        y_BTD = self.output(y_BTH.to(x_BTD.dtype))
        if state is None:
            return y_BTD, None
        h_BH = _cells.last_BH(y_BTH, before.h_BH, layout.lengths_B)
        return y_BTD, replace(before, h_BH=h_BH, length_B=layout.advance(before.length_B, length), trail=None)

    def flops(self, length: int) -> int:
        """Two products a step, and the output projection where there is one."""
        H, D = self.hidden, self.width
        return 2 * length * (3 * H * (D + H) + (H * D if isinstance(self.output, nn.Linear) else 0))

    def state_bytes(self, length: int) -> int:
        """One vector and the length."""
        return self.hidden * _cells.wide(self.bias.dtype).itemsize + 8

    def _step(self, x_BTD: Tensor, h_BH: Tensor) -> Tensor:
        weights = (self.input_weight, self.bias, self.state_weight, self.reset_bias)
        input_GD, bias_G, state_GH, reset_H = (weight.to(x_BTD.dtype) for weight in weights)
        ir_BH, iz_BH, in_BH = torch.addmm(bias_G, x_BTD[:, 0], input_GD.t()).chunk(3, 1)
        hr_BH, hz_BH, hn_BH = torch.mm(h_BH, state_GH.t()).chunk(3, 1)
        n_BH = (in_BH + (ir_BH + hr_BH).sigmoid() * (hn_BH + reset_H)).tanh()
        return (n_BH + (iz_BH + hz_BH).sigmoid() * (h_BH - n_BH))[:, None]

    def _sequence(self, x_BTD: Tensor, h_BH: Tensor) -> Tensor:
        weights = (self.input_weight, self.state_weight, self.bias, self.reset_bias)
        input_GD, state_GH, bias_G, reset_H = (weight.to(x_BTD.dtype) for weight in weights)
        train = torch.is_grad_enabled()
        if train and not x_BTD.is_cuda and not torch.compiler.is_compiling():
            input_GD, bias_G = input_GD.roll(self.hidden, 0), bias_G.roll(self.hidden)  # r, z, n -> n, r, z
            gates_TBG = nn.functional.linear(x_BTD.transpose(0, 1), input_GD, bias_G)
            return Scan.apply(gates_TBG, h_BH, state_GH, reset_H).transpose(0, 1)
        state_bias_G = torch.cat([reset_H.new_zeros(2 * self.hidden), reset_H])
        flat = _cells.together([input_GD, state_GH, bias_G, state_bias_G])
        return torch.gru(x_BTD, h_BH[None], flat, True, 1, 0.0, train, False, True)[0]
