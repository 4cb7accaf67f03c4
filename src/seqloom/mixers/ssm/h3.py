"""H3: a state-space model that shifts, one that remembers, and products between them: recall of what came before.

    q, k, v = W_q x, W_k x, W_v x        k~_t = sum_{l < S} c_l k_{t-l} + b k_t
    P_t = k~_t v_t^T (each head)         Z = SSM(P) + d P                       out = W_o [q_t^T Z_t]

The shift model has the matrix that moves its state down by one and feeds the newest input in at the top: its kernel is
its readout c, S free taps, and its state the last S - 1 keys. So k~ can hold the token before, and the product with v
writes the pair (before, now) into the second memory, an S4D of each head (zero-order hold), from which q reads. A head
has K channels of each; the memory then holds K x K products. One channel a head (K = 1), the authors' default, is
elementwise. The paper's hybrids put two attention layers among them: that is the backbone's pattern.
Decided here: the taps start with variance 1 / S and not 1, as in the authors' code, with which keys are sqrt(S) = 8
times as large as values; of ten seconds' training on the flights sample 4.97 bits were left instead of 5.48.
Shapes: B batch, T time, D width, H heads, K channels of a head, X = K K of its products, S taps (for the state: the
S - 1 keys before), N modes of the second model.
Source: Fu, Dao, Saab, Thomas, Rudra, Ré, "Hungry hungry hippos: towards language modeling with state space models",
2023, arXiv:2212.14052, section 3 and appendix B.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.long_conv.chunks import history
from seqloom.kernels.vandermonde import vandermonde
from seqloom.layers.linear import Linear
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.ssm._diagonal import DiagonalBank
from seqloom.mixers.ssm._transition import Spectrum


class H3(Mixer):
    """Shift and diagonal state-space models with products between them; the state is keys and memories of a head."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """After the last valid position."""

        keys_BSD: Tensor
        """What the shift model holds: the last S - 1 keys."""
        h_BXHN2: Tensor
        """What the diagonal model holds of every product."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of H3."""

        head_width: int = 1
        """Channels K of a head, a divisor of the width: its memory holds K x K products, at K times the cost."""
        shift: int = 64
        """Taps S of the shift model, its state size."""
        state: int = 64
        """State size of the diagonal model; its N = half as many complex modes stand for conjugate pairs. Even."""
        init: Spectrum = "legs"
        """Spectrum of the diagonal model at the start."""
        steps: tuple[float, float] = (1e-3, 1e-1)
        """Range of its initial step sizes, log-uniform: 1 / step is how many positions a head remembers."""
        learning_rate: float = 1e-3
        """Cap of the learning rate of what sets time scales, which also gets no weight decay."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """A convolution to rounding, a recurrence with a constant state."""
        return Traits(causal="fft", step="constant", rollback="recorded", sequence_comm="state")

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(head_width=4, shift=3, state=8),
            cls.Config(head_width=2, shift=1, state=4, init="lin"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        if options.head_width < 1 or width % options.head_width:
            raise ConfigError(f"head_width must divide the width {width}, and {options.head_width} does not")
        if options.shift < 1:
            raise ConfigError(f"shift must be at least 1 tap, not {options.shift}")
        if options.state < 2 or options.state % 2:
            raise ConfigError(f"state must be even and at least 2, not {options.state}: modes come in conjugate pairs")
        self.heads = width // options.head_width
        self.qkv = Linear(width, 3 * width)
        self.taps = nn.Parameter(torch.randn(width, options.shift) * options.shift**-0.5)
        self.key_skip = nn.Parameter(torch.randn(width))
        self.bank = DiagonalBank(self.heads, options.state // 2, options.init, "zoh", options.steps, 1)
        self.skip = nn.Parameter(torch.randn(self.heads))
        self.output = Linear(width, width)

    @property
    def wide(self) -> torch.dtype:
        """Real dtype of kernels and states."""
        return torch.promote_types(self.skip.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Zeros."""
        options, new = self.config, self.skip.new_zeros
        return self.State(
            keys_BSD=new(batch, options.shift - 1, self.width, dtype=self.wide),
            h_BXHN2=new(batch, options.head_width**2, self.heads, options.state // 2, 2, dtype=self.wide),
            length_B=self.no_length(batch),
        )

    def param_groups(self) -> list[ParamGroup]:
        """Step sizes, decays and frequencies: a small learning rate, no weight decay."""
        names = tuple(f"bank.{name}" for name in self.bank.timing)
        return [ParamGroup(names=names, lr=self.config.learning_rate, weight_decay=0.0)]

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Shift the keys, remember their products with the values, read them by the queries."""
        length = x_BTD.shape[1]
        qkv_BTX = self.qkv(x_BTD)
        with torch.autocast(x_BTD.device.type, enabled=False):
            q_BTD, k_BTD, v_BTD = qkv_BTX.to(self.wide).chunk(3, -1)
            valid_BT = layout.valid_BT(length)
            if valid_BT is not None:
                k_BTD, v_BTD = (value.masked_fill(~valid_BT[..., None], 0) for value in (k_BTD, v_BTD))
            before_BSD = None if state is None else state.keys_BSD
            shifted_BTD = long_conv(k_BTD, self.taps.to(self.wide), None, self.key_skip.to(self.wide), before_BSD)
            h_BXHN2 = None if state is None else state.h_BXHN2
            y_BTD, h_BXHN2 = self._remember(q_BTD, shifted_BTD, v_BTD, h_BXHN2, layout.lengths_B)
        out_BTD = self.output(y_BTD.to(qkv_BTX.dtype))
        if state is None:
            return out_BTD, None
        keys_BSD = history(k_BTD, before_BSD, self.config.shift - 1, layout.lengths_B)
        length_B = layout.advance(state.length_B, length)
        return out_BTD, replace(state, keys_BSD=keys_BSD, h_BXHN2=h_BXHN2, length_B=length_B, trail=None)

    def _remember(
        self, q_BTD: Tensor, k_BTD: Tensor, v_BTD: Tensor, h_BXHN2: Tensor | None, lengths_B: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Q^T SSM(k v^T) (B, T, D): every product is a row of its own for the head's model."""
        batch, K = len(q_BTD), self.config.head_width
        q_BTHK, k_BTHK, v_BTHK = (value.unflatten(2, (self.heads, K)) for value in (q_BTD, k_BTD, v_BTD))
        products_BTHKK = k_BTHK[..., None] * v_BTHK[..., None, :]
        u_RTH = products_BTHKK.flatten(3).permute(0, 3, 1, 2).flatten(0, 1)  # R = B X rows
        modes, skip_H, h_RHN2 = self.bank.discrete(), self.skip.to(u_RTH.dtype), None
        if h_BXHN2 is None:
            z_RTH = long_conv(u_RTH, modes.kernels(u_RTH.shape[1])[0], None, skip_H)
        else:
            lengths_R = None if lengths_B is None else lengths_B.repeat_interleave(K * K)
            z_RTH, h_RHN2 = modes.resume(u_RTH, h_BXHN2.flatten(0, 1), lengths_R)
            z_RTH = z_RTH + skip_H * u_RTH
        z_BTHKK = z_RTH.unflatten(0, (batch, K, K)).permute(0, 3, 4, 1, 2)
        y_BTD = (q_BTHK[..., None] * z_BTHKK).sum(3).flatten(2)
        return y_BTD, None if h_RHN2 is None else h_RHN2.unflatten(0, (batch, K * K))

    def flops(self, length: int) -> int:
        """The maps, the shift's convolution, the diagonal model's kernel and its convolution of all products."""
        D, H, X = self.width, self.heads, self.config.head_width**2
        with torch.device("meta"):
            log_a = torch.empty(H, self.config.state // 2, dtype=torch.complex128)
            c = torch.empty(1, *log_a.shape, dtype=torch.complex64)
            k, taps = torch.empty(1, length, D), torch.empty(D, self.config.shift)
            u, kernel = torch.empty(X, length, H), torch.empty(H, length)
        convolutions = long_conv.floor(k, taps).macs + long_conv.floor(u, kernel).macs
        return 2 * (4 * length * D * D + vandermonde.floor(log_a, c, length).macs + convolutions)

    def state_bytes(self, length: int) -> int:
        """The keys, the memories, and the length."""
        options = self.config
        numbers = (options.shift - 1) * self.width + options.head_width * self.width * options.state
        return numbers * self.wide.itemsize + 8
