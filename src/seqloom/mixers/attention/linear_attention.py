"""Linear attention: a product of features in place of the softmax, so that the past fits into one matrix a head.

    S_t = S_{t-1} + f(k_t) [v_t, 1]^T      [n_t, d_t] = f(q_t)^T S_t      o_t = n_t / (d_t + eps)      f = elu + 1

Whole sequences go in chunks: within one, products of queries and keys; between them, the matrix. One position is the
recurrence above. Not causal: one matrix for the whole sequence. Features, sums and states are float32 or wider.

Shapes: B batch, T time, N chunks, C positions of a chunk, D width, H heads, K head width, W = K + 1 (the last column of
the matrix is the normaliser).
Source: Katharopoulos et al., "Transformers are RNNs", 2020, arXiv:2006.16236, sections 3.2 to 3.4; Hua et al.,
"Transformer quality in linear time", 2022, arXiv:2202.10447, section 3.2 (chunks).
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, pad

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State
from seqloom.mixers._base import Mixer, Traits


class LinearAttention(Mixer):
    """Attention by features; its state is one matrix a head, whatever the length."""

    @dataclass(frozen=True, kw_only=True)
    class State(State):
        """Sums over the past."""

        s_BHKW: Tensor
        """Features times values, and in the last column features alone."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Heads, features, and the size of a chunk."""

        heads: int = 4
        """Heads; must divide the width."""
        feature: Literal["elu", "relu"] = "elu"
        """elu: elu(x) + 1, positive everywhere; relu: zero for half of the inputs, hence sparser."""
        causal: bool = True
        """False lets every position see the whole sequence; then there is no state."""
        chunk: int = 64
        """Positions of one chunk; changes the speed alone."""
        eps: float = 1e-6
        """Added to the normaliser."""
        bias: bool = False
        """Biases of queries, keys, values and output."""

    config: Config

    @classmethod
    def traits(cls, config: Config) -> Traits:
        """A matrix goes back only to recorded points; without causality nothing can go on."""
        if config.causal:
            return Traits(causal="exact", step="constant", rollback="recorded", sequence_comm="state")
        return Traits(causal="no", step="none", rollback="none", sequence_comm="reduce", bidirectional="native")

    @classmethod
    def grid(cls) -> tuple[Config, ...]:
        """Each option once, in combinations that meet."""
        return (cls.Config(), cls.Config(feature="relu", chunk=4, bias=True, heads=2), cls.Config(causal=False))

    def __init__(self, width: int, config: Config | None = None) -> None:
        """One matrix makes queries, keys and values, in this order."""
        super().__init__(width, config)
        if self.config.heads < 1 or width % self.config.heads:
            raise ConfigError(f"linear_attention: {self.config.heads} heads do not divide the width {width}")
        if self.config.chunk < 1:
            raise ConfigError(f"linear_attention: chunk must be at least 1, not {self.config.chunk}")
        if self.config.feature not in ("elu", "relu"):
            raise ConfigError(f"linear_attention: feature is 'elu' or 'relu', not {self.config.feature!r}")
        self.head_width = width // self.config.heads
        self.qkv = nn.Linear(width, 3 * width, bias=self.config.bias)
        self.out = nn.Linear(width, width, bias=self.config.bias)

    def initial_state(self, batch: int, *, capacity: int | None = None) -> State:
        """Nothing summed yet."""
        if not self.config.causal:
            raise ConfigError("LinearAttention over the whole sequence (causal=False) cannot continue from a state")
        weight, K = self.qkv.weight, self.head_width
        wide = torch.promote_types(weight.dtype, torch.float32)
        s_BHKW = weight.new_zeros(batch, self.config.heads, K, K + 1, dtype=wide)
        return self.State(length_B=self.no_length(batch), s_BHKW=s_BHKW)

    def mix(
        self, x_BTD: Tensor, state: State | None, layout: Layout, context: Tensor | None
    ) -> tuple[Tensor, State | None]:
        """Features of all positions, sums in the form that fits the call."""
        qkv_BTE = self.qkv(x_BTD)
        with torch.autocast(x_BTD.device.type, enabled=False):
            q, k, v = self._heads(qkv_BTE, layout)
            s = None if state is None else state.s_BHKW
            if not self.config.causal:
                y_BHTW = q @ (k.mT @ v)
            elif s is not None and x_BTD.shape[1] == 1:
                s = s + k.mT * v
                y_BHTW = q @ s
            else:
                y_BHTW, s = self._chunks(q, k, v, s)
            o_BHTK = y_BHTW[..., :-1] / (y_BHTW[..., -1:] + self.config.eps)
        y_BTD = self.out(o_BHTK.transpose(1, 2).flatten(2).to(qkv_BTE.dtype))
        if state is None or s is None:
            return y_BTD, None
        return y_BTD, replace(state, s_BHKW=s, length_B=layout.advance(state.length_B, x_BTD.shape[1]))

    def _heads(self, qkv_BTE: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """Features of queries and keys, zero keys at pads, and values with a one behind."""
        wide = torch.promote_types(qkv_BTE.dtype, torch.float32)
        split = qkv_BTE.to(wide).unflatten(2, (3, self.config.heads, self.head_width)).unbind(2)
        q, k, v = (x_BTHK.transpose(1, 2) for x_BTHK in split)
        q, k = (elu(q) + 1, elu(k) + 1) if self.config.feature == "elu" else (q.relu(), k.relu())
        v = pad(v, (0, 1), value=1.0)
        valid_BT = layout.valid_BT(qkv_BTE.shape[1])
        if valid_BT is None:
            return q, k, v
        pad_B1T1 = ~valid_BT[:, None, :, None]
        return q, k.masked_fill(pad_B1T1, 0), v.masked_fill(pad_B1T1, 0)  # v too: zero times NaN is NaN

    def _chunks(self, q: Tensor, k: Tensor, v: Tensor, s_BHKW: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Numerators and normalisers (B, H, T, W), and the matrix after the last position where one was given."""
        length, size = q.shape[2], min(self.config.chunk, q.shape[2])
        rest = -length % size
        q, k, v = (pad(x, (0, 0, 0, rest)).unflatten(2, (-1, size)) for x in (q, k, v))
        y_BHNCW = (q @ k.mT).tril() @ v
        if s_BHKW is None and length == size:
            return y_BHNCW.flatten(2, 3), None
        sums_BHNKW = (k.mT @ v).cumsum(2)
        before_BHNKW = pad(sums_BHNKW[:, :, :-1], (0, 0, 0, 0, 1, 0))
        if s_BHKW is not None:
            before_BHNKW = before_BHNKW + s_BHKW[:, :, None]
            s_BHKW = s_BHKW + sums_BHNKW[:, :, -1]
        return (y_BHNCW + q @ before_BHNKW).flatten(2, 3)[:, :, :length], s_BHKW

    def flops(self, length: int) -> int:
        """Projections, and per position 2 K W for the matrix and C (K + W) within the chunk."""
        H, K, W = self.config.heads, self.head_width, self.head_width + 1
        size = max(1, min(self.config.chunk, length))
        padded = length + -length % size
        inside = padded * size * (K + W) if self.config.causal else 0
        between = 0 if self.config.causal and length <= size else 2 * padded * K * W
        return 2 * (4 * length * self.width**2 + H * (inside + between))

    def state_bytes(self, length: int) -> int:
        """One matrix a head in float32 or wider, and the row's length."""
        size = torch.promote_types(self.qkv.weight.dtype, torch.float32).itemsize
        return self.width * (self.head_width + 1) * size + torch.long.itemsize
