"""mLSTM: a matrix memory with exponential input gates, a forget gate a head, and a normaliser; two blocks around it.

    C_t = f_t C_{t-1} + i_t k_t v_t^T    n_t = f_t n_{t-1} + i_t k_t    h_t = C_t^T q_t / max(|n_t^T q_t|, 1)

    f = sigmoid(f~) or exp(f~)    i = exp(i~)    k scaled by K^{-1/2}    C and n are kept times e^{-m} (kernel)

    up     u, z = W x    s = silu(conv(u))    q, k = blocks of s    v = blocks of u    i~, f~ from [q; k; v]
           y = W' ((norm(h) + g s) silu(z))
    plain  q, k, v, z = W x    i~, f~ = cap tanh(W'' x / cap)    y = W' (norm(h) sigmoid(z))

norm is a layer norm a head. ``causal=False`` sums over the whole row with one joint normaliser (``_matrix_memory``),
the convolution is centred. The authors' code adds 1e-6 to the divisor, which depends on m; it is left out here.

Shapes: B batch, T time, D width, E inner channels, H heads, K key width, V value width, L inputs the convolution keeps.
Source: Beck et al., "xLSTM: extended long short-term memory", 2024, arXiv:2405.04517, section 2.3 and figure 11 (up);
Beck et al., "xLSTM 7B", 2025, arXiv:2503.13427, section 3 (plain); Schmidinger et al., "Bio-xLSTM", 2024,
arXiv:2411.04165, section 3 (both directions, rotary positions).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, logsigmoid, silu

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.kernels.decay_attention import decay_attention, normalised_decay_attention
from seqloom.kernels.short_conv import short_conv
from seqloom.layers.block_linear import BlockLinear
from seqloom.layers.linear import Linear
from seqloom.layers.rotary import Rotary
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.recurrent import _matrix_memory

NORM_EPS = {"up": 1e-5, "plain": 1e-6}
"""As in the authors' code of either block."""
INPUT_SPREAD = 0.1
"""Of the input gates at the start."""
FORGET_BIAS = (3.0, 6.0)
"""Forget gates of the first and the last head at the start, before the sigmoid."""


_Three = tuple[Tensor, Tensor, Tensor]


class MLSTM(Mixer):
    """Matrix memory with exponential gates; its state is one matrix and one vector a head."""

    @dataclass(frozen=True, kw_only=True)
    class State(BaseState):
        """After the last valid position; C and n are times e^{-m}."""

        c_BHKV: Tensor
        n_BHK: Tensor
        m_BH: Tensor
        inputs_BLE: Tensor
        """What the convolution still sees; L = 0 where there is none."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of the memory and of the block around it."""

        block: Literal["up", "plain"] = "up"
        """up: the first xLSTM's, convolution and gate in a wider space; plain: xLSTM 7B's, maps of the input alone."""
        heads: int = 4
        """Heads; must divide the keys and the values."""
        causal: bool = True
        """False lets every position see the whole row; then there is no state."""
        forget: Literal["sigmoid", "exp"] = "sigmoid"
        """Forget gate; exp may exceed 1, and starts at the same decays."""
        expand: float = 2.0
        """Inner channels of the block up, in widths."""
        conv: int = 4
        """Taps of the convolution of the block up; 1 = none."""
        projection: int = 4
        """Channels of a diagonal block of the maps to q, k and v in the block up; must divide the inner channels."""
        key_factor: float = 0.5
        """Channels of queries and of keys in the block plain, in widths."""
        cap: float = 15.0
        """Largest gate before its exponential in the block plain, by a tanh."""
        input_bias: float = 0.0
        """Mean of the input gates at the start; xLSTM 7B takes -10: outputs are small until the memory has filled."""
        rotary: Rotary.Config | None = None
        """Turn queries and keys by their positions; None = no positions."""
        bias: bool = False
        """Biases of all maps and of the norm; gates and convolution always have theirs."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Exact, constant state, starts a segment by itself; without causality nothing can go on."""
        if config.causal:
            return Traits(causal="exact", step="constant", rollback="recorded", sequence_comm="state", packing="native")
        return Traits(causal="no", step="none", rollback="none", sequence_comm="forbidden", bidirectional="native")

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        turned = Rotary.Config(theta=5e5)
        return (
            cls.Config(),
            cls.Config(block="plain", heads=2),
            cls.Config(causal=False),
            cls.Config(heads=2, forget="exp", expand=1.5, conv=2, projection=2, bias=True, rotary=turned),
            cls.Config(block="plain", heads=2, forget="exp", key_factor=1.0, cap=5.0, bias=True, input_bias=-1.0),
            cls.Config(block="plain", heads=2, causal=False, rotary=turned, key_factor=1.0),
            cls.Config(heads=1, conv=1, projection=12, expand=1.5),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        """Raises ConfigError where heads or blocks do not divide the channels."""
        super().__init__(width, config)
        options, up = self.config, self.config.block == "up"
        self._refuse()
        self.values = round(options.expand * width) if up else width
        self.keys = self.values if up else round(options.key_factor * width)
        for name, channels in (("keys", self.keys), ("values", self.values)):
            if channels < 1 or options.heads < 1 or channels % options.heads:
                raise ConfigError(f"mlstm: {options.heads} heads do not divide {channels} channels of {name}")
        read = 3 * self.values if up else width
        self.into = Linear(width, 2 * self.values + (0 if up else 2 * self.keys), bias=options.bias)
        self.gates = Linear(read, 2 * options.heads)
        if up:
            self._inner(self.values)
        self.norm_weight = nn.Parameter(torch.ones(self.values))
        self.norm_bias = nn.Parameter(torch.zeros(self.values)) if options.bias else None
        self.output = Linear(self.values, width, bias=options.bias)
        self.rotary = None if options.rotary is None else Rotary(self.keys // options.heads, options.rotary)
        self._start()

    @property
    def wide(self) -> torch.dtype:
        """Dtype of gates, memory and norm."""
        return torch.promote_types(self.norm_weight.dtype, torch.float32)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> BaseState:
        """Nothing remembered; then m is of no account."""
        if not self.config.causal:
            raise ConfigError("MLSTM over the whole row (causal=False) cannot continue from a state")
        memory: Any = self._empty(batch)
        return self.State(**memory, length_B=self.no_length(batch))

    def param_groups(self) -> list[ParamGroup]:
        """Gates start at their biases alone: no weight decay on those."""
        return [ParamGroup(names=("gates.bias",), weight_decay=0.0)]

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Make queries, keys, values and gates; remember; shape the output."""
        valid_BT = layout.valid_BT(x_BTD.shape[1])
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        before = self._empty(len(x_BTD)) if state is None else state.tensors()
        inputs_BLE, skip_BTE = before["inputs_BLE"], None
        if self.config.block == "up":
            u_BTE, z_BTE = self.into(x_BTD).chunk(2, -1)
            s_BTE, inputs_BLE = self._convolve(u_BTE, inputs_BLE, layout)
            q, k, v = self.query(s_BTE), self.key(s_BTE), self.value(u_BTE)
            gates_BTG, skip_BTE = self.gates(torch.cat([q, k, v], -1)), self.skip.to(s_BTE.dtype) * s_BTE
        else:
            q, k, v, z_BTE = self.into(x_BTD).split([self.keys, self.keys, self.values, self.values], -1)
            gates_BTG = self.gates(x_BTD)
        with torch.autocast(x_BTD.device.type, enabled=False):
            heads = self._heads((q, k, v), layout, self.no_length(len(x_BTD)) if state is None else state.length_B)
            h_BTHV, memory = self._remember(heads, self._gated(gates_BTG, valid_BT), state, before, layout)
            h_BTE = self._normed(h_BTHV).to(z_BTE.dtype)
        y_BTD = self.output(h_BTE * z_BTE.sigmoid() if skip_BTE is None else (h_BTE + skip_BTE) * silu(z_BTE))
        if state is None:
            return y_BTD, None
        length_B = layout.advance(state.length_B, x_BTD.shape[1])
        names = ("c_BHKV", "n_BHK", "m_BH")
        kept = dict(zip(names, memory, strict=True))
        return y_BTD, replace(state, **kept, inputs_BLE=inputs_BLE, length_B=length_B, trail=None)

    def flops(self, length: int) -> int:
        """Maps, convolution and memory."""
        options, E = self.config, self.values
        macs = sum(part.weight.numel() for part in (self.into, self.gates, self.output))
        if options.block == "up":
            macs += 3 * E * options.projection + (E * options.conv if options.conv > 1 else 0)
        return 2 * (length * macs + self._memory_macs(length))

    def state_bytes(self, length: int) -> int:
        """One matrix, one vector and one number a head, what the convolution keeps, and the length."""
        numbers = self.keys * self.values // self.config.heads + self.keys + self.config.heads
        return (numbers + self._kept() * self.values) * self.wide.itemsize + 8

    def _refuse(self) -> None:
        """Options that mean nothing."""
        options = self.config
        if options.block not in NORM_EPS:
            raise ConfigError(f"mlstm: block is 'up' or 'plain', not {options.block!r}")
        if options.forget not in ("sigmoid", "exp"):
            raise ConfigError(f"mlstm: forget is 'sigmoid' or 'exp', not {options.forget!r}")
        for name in ("expand", "conv", "projection", "key_factor", "cap"):
            if getattr(options, name) <= 0:
                raise ConfigError(f"mlstm: {name} must be positive, not {getattr(options, name)}")

    def _inner(self, channels: int) -> None:
        """Parts of the block up alone."""
        size, taps = self.config.projection, self.config.conv
        if channels % size:
            raise ConfigError(f"mlstm: blocks of projection = {size} do not divide {channels} inner channels")
        self.query, self.key, self.value = (BlockLinear(channels, channels // size, self.config.bias) for _ in range(3))
        self.skip = nn.Parameter(torch.ones(channels))
        if taps > 1:
            self.conv_weight = nn.Parameter(torch.empty(channels, taps).uniform_(-(taps**-0.5), taps**-0.5))
            self.conv_bias = nn.Parameter(torch.zeros(channels))

    def _start(self) -> None:
        """Initial values: narrow maps, gates that are biases alone and remember for about 20 to 400 positions."""
        heads, up = self.config.heads, self.config.block == "up"
        for part in (self.into, *((self.query, self.key, self.value) if up else ())):
            nn.init.normal_(part.weight, std=(2 / (5 * self.width)) ** 0.5)
        nn.init.normal_(self.output.weight, std=2 * self.width**-0.5)
        for part in (self.into, self.output):
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        nn.init.zeros_(self.gates.weight)
        forget_H = torch.linspace(*FORGET_BIAS, heads)
        input_H = self.config.input_bias + INPUT_SPREAD * torch.randn(heads)
        with torch.no_grad():
            self.gates.bias.copy_(
                torch.cat([input_H, forget_H if self.config.forget == "sigmoid" else logsigmoid(forget_H)])
            )

    def _kept(self) -> int:
        return self.config.conv - 1 if self.config.block == "up" else 0

    def _empty(self, batch: int) -> dict[str, Tensor]:
        H, zeros = self.config.heads, self.norm_weight.new_zeros
        K, V, dtype = self.keys // H, self.values // H, self.wide
        return {
            "c_BHKV": zeros(batch, H, K, V, dtype=dtype),
            "n_BHK": zeros(batch, H, K, dtype=dtype),
            "m_BH": zeros(batch, H, dtype=dtype),
            "inputs_BLE": zeros(batch, self._kept(), self.values, dtype=dtype),
        }

    def _convolve(self, u_BTE: Tensor, inputs_BLE: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        if not self._kept():
            return silu(u_BTE), inputs_BLE
        ahead = 0 if self.config.causal else self._kept() // 2
        with torch.autocast(u_BTE.device.type, enabled=False):
            weight_EL, bias_E = self.conv_weight.to(u_BTE.dtype), self.conv_bias.to(u_BTE.dtype)
            return short_conv(
                u_BTE, weight_EL, bias_E, inputs_BLE, layout.segments_BT(), layout.lengths_B, "silu", ahead
            )

    def _heads(self, qkv: _Three, layout: Layout, before_B: Tensor) -> _Three:
        """Queries, keys, scaled, and values, a head each and wide."""
        q, k, v = (x.to(self.wide).unflatten(-1, (self.config.heads, -1)) for x in qkv)
        if self.rotary is not None:
            where_BT = layout.where_BT(q.shape[1], before_B)
            q, k = self.rotary(q, where_BT), self.rotary(k, where_BT)
        return q, k * k.shape[-1] ** -0.5, v

    def _gated(self, gates_BTG: Tensor, valid_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logarithms of the forget and the input gate; a pad forgets and lets in nothing."""
        gates_BTG = gates_BTG.to(self.wide)
        if self.config.block == "plain":
            gates_BTG = self.config.cap * torch.tanh(gates_BTG / self.config.cap)
        log_i_BTH, log_f_BTH = gates_BTG.chunk(2, -1)
        log_f_BTH = logsigmoid(log_f_BTH) if self.config.forget == "sigmoid" else log_f_BTH
        if valid_BT is None:
            return log_f_BTH, log_i_BTH
        pad_BT1 = ~valid_BT[..., None]
        return log_f_BTH.masked_fill(pad_BT1, 0), log_i_BTH.masked_fill(pad_BT1, -torch.inf)

    def _remember(
        self, qkv: _Three, gates: tuple[Tensor, Tensor], state: Any, before: dict[str, Tensor], layout: Layout
    ) -> tuple[Tensor, _Three]:
        """Outputs of the memory, in the form that fits the call, and the memory afterwards."""
        memory = before["c_BHKV"], before["n_BHK"], before["m_BH"]
        (q, k, v), (log_f, log_i) = qkv, gates
        if not self.config.causal:
            return _matrix_memory.both_ways(q, k, v, log_f, log_i), memory
        if state is not None and q.shape[1] == 1 and layout.starts_BT is None:
            h_BTHV, *memory = _matrix_memory.step(qkv, gates, memory)
        else:
            h_BTHV, *memory = normalised_decay_attention(q, k, v, log_f, log_i, *memory, layout.segments_BT())
        return h_BTHV, (memory[0], memory[1], memory[2])

    def _normed(self, h_BTHV: Tensor) -> Tensor:
        """Layer norm of each head with one weight a channel (B, T, E)."""
        y_BTE = layer_norm(h_BTHV.to(self.wide), h_BTHV.shape[-1:], eps=NORM_EPS[self.config.block]).flatten(2)
        y_BTE = y_BTE * self.norm_weight.to(self.wide)
        return y_BTE if self.norm_bias is None else y_BTE + self.norm_bias.to(self.wide)

    def _memory_macs(self, length: int) -> int:
        """Those of the kernel on values and a one behind them; on both directions where the row is seen whole."""
        H, rows = self.config.heads, 1 if self.config.causal else 2
        K, W = self.keys // H, self.values // H + 1
        with torch.device("meta"):
            q, v, decay = (torch.empty(rows, length, H, channels) for channels in (K, W, 1))
            s = torch.empty(rows, H, K, W)
        return decay_attention.floor(q, q, v, decay, s).macs
