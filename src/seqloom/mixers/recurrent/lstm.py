"""LSTM: a gated memory cell.

    i, f, g, o = W x_t + U h_{t-1} + b        (torch's order of gates)
    c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g)
    h_t = sigmoid(o) * tanh(c_t)

The forget gate's bias starts at 1, so that an untrained cell remembers (Gers et al., Jozefowicz et al. 2015).
A whole sequence is one call of torch's fused operator (oneDNN on a CPU, cuDNN on a GPU), a step is two products.

Shapes: B batch, T time, D width, H hidden, G = 4H gates.
Source: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; Gers, Schmidhuber and Cummins, "Learning to
Forget", 2000, section 3.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.recurrent import _cells

HOLD = 1e4  # sigmoid of it is exactly 1, of its negative exactly 0, in float32 and float64


class LSTM(Mixer):
    """Long short-term memory; its state is two vectors a row."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """Output and cell after the last valid position."""

        h_BH: Tensor
        c_BH: Tensor

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of the LSTM."""

        hidden: int = 0
        """Width of the cell; 0 = the width, and then there is no output projection."""
        forget_bias: float = 1.0
        """Bias of the forget gate at initialisation."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Exact, constant state."""
        return Traits(causal="exact", step="constant", rollback="recorded", sequence_comm="state")

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return cls.Config(), cls.Config(hidden=12, forget_bias=0.0)

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        self.hidden = H = _cells.hidden_width(self.config.hidden, width)
        self.input_weight = _cells.uniform(4 * H, width, H)
        self.state_weight = _cells.uniform(4 * H, H, H)
        self.bias = nn.Parameter(torch.zeros(4 * H))
        with torch.no_grad():
            self.bias[H : 2 * H] = self.config.forget_bias
        self.output = nn.Identity() if width == H else nn.Linear(H, width, bias=False)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> State:
        """Zeros."""
        zeros = self.bias.new_zeros(2, batch, self.hidden, dtype=_cells.wide(self.bias.dtype))
        return self.State(h_BH=zeros[0], c_BH=zeros[1], length_B=self.no_length(batch))

    def mix(
        self, x_BTD: Tensor, state: BaseState | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, BaseState | None]:
        """Run the cell over the columns."""
        length = x_BTD.shape[1]
        before: Any = self.initial_state(len(x_BTD)) if state is None else state
        lengths_B = None if state is None else layout.lengths_B  # without a state nobody asks where a row ended
        with torch.autocast(x_BTD.device.type, enabled=False):
            # oneDNN's operator cannot be traced with gradients, so a compiler sees the plain loop
            run = self._loop if length == 1 or torch.compiler.is_compiling() else self._fused
            y_BTH, h_BH, c_BH = run(x_BTD.to(before.h_BH.dtype), before.h_BH, before.c_BH, lengths_B)
        y_BTD = self.output(y_BTH.to(x_BTD.dtype))
        if state is None:
            return y_BTD, None
        return y_BTD, replace(
            before, h_BH=h_BH, c_BH=c_BH, length_B=layout.advance(before.length_B, length), trail=None
        )

    def flops(self, length: int) -> int:
        """Two products a step, and the output projection where there is one."""
        H, D = self.hidden, self.width
        return 2 * length * (4 * H * (D + H) + (H * D if isinstance(self.output, nn.Linear) else 0))

    def state_bytes(self, length: int) -> int:
        """Two vectors and the length."""
        return 2 * self.hidden * _cells.wide(self.bias.dtype).itemsize + 8

    def _loop(self, x_BTD: Tensor, h_BH: Tensor, c_BH: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, ...]:
        wide, outputs = x_BTD.dtype, []
        state_HG = self.state_weight.to(wide).t()
        gates_BTG = nn.functional.linear(x_BTD, self.input_weight.to(wide), self.bias.to(wide))
        for column, gates_BG in enumerate(gates_BTG.unbind(1)):
            i_BH, f_BH, g_BH, o_BH = torch.addmm(gates_BG, h_BH, state_HG).chunk(4, 1)
            new_c_BH = f_BH.sigmoid() * c_BH + i_BH.sigmoid() * g_BH.tanh()
            new_h_BH = o_BH.sigmoid() * new_c_BH.tanh()
            if lengths_B is not None:
                valid_B1 = (lengths_B > column)[:, None]
                new_c_BH, new_h_BH = torch.where(valid_B1, new_c_BH, c_BH), torch.where(valid_B1, new_h_BH, h_BH)
            h_BH, c_BH = new_h_BH, new_c_BH
            outputs.append(h_BH)
        return torch.stack(outputs, 1), h_BH, c_BH

    def _fused(self, x_BTD: Tensor, h_BH: Tensor, c_BH: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, ...]:
        wide = x_BTD.dtype
        input_GD, state_GH, bias_G = (w.to(wide) for w in (self.input_weight, self.state_weight, self.bias))
        if lengths_B is not None:
            x_BTD, input_GD = self._held(x_BTD, input_GD, lengths_B)
        weights = _cells.together([input_GD, state_GH, bias_G, torch.zeros_like(bias_G)])
        train = torch.is_grad_enabled()
        y_BTH, h_1BH, c_1BH = torch.lstm(x_BTD, (h_BH[None], c_BH[None]), weights, True, 1, 0.0, train, False, True)
        return y_BTH, h_1BH[0] if lengths_B is None else _cells.last_BH(y_BTH, h_BH, lengths_B), c_1BH[0]

    def _held(self, x_BTD: Tensor, input_GD: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """One more input that is 1 at pads: it shuts the input gate and opens the forget gate, so that c stays."""
        pad_BT1 = torch.arange(x_BTD.shape[1], device=x_BTD.device)[:, None] >= lengths_B[:, None, None]
        hold_4 = input_GD.new_tensor([-HOLD, HOLD, 0.0, 0.0])
        hold_G1 = hold_4.repeat_interleave(self.hidden)[:, None]
        x_BTD = x_BTD.masked_fill(pad_BT1, 0.0)
        return torch.cat([x_BTD, pad_BT1.to(x_BTD.dtype)], 2), torch.cat([input_GD, hold_G1], 1)
