"""Matrix mixers: one shell, and in it matrices of several structures that come from the input or are learnt by place.

    z, x, q, k = W_in u        x, q, k = silu(centred conv)        out = W_out [rms(M x + D x) * silu(z)]

    toeplitz      M_ij = q_{i-j} / sqrt(T)  (j <= i)     k_{j-i} / sqrt(T)  (j > i)                  q, k one number
    vandermonde   M_ij = sum_n [cos(2 pi w j q_in) - cos(2 pi w i k_jn)] / sqrt(2 T N)               w = 1 / 1000
    cauchy        M_ij = sum_n 1 / (exp(q_in) + exp(k_jn) + exp(b)) / sqrt(T N)
    low_rank      M_ij = q_i . k_j / sqrt(T N)
    attention     M_ij = softmax_j(q_i . k_j / sqrt(N))
    dense         M_ij = a number of its own / sqrt(T)

T is the length of the row, without pads. With ``dependent`` q and k are made of the tokens, so that the same parameters
serve any length; without, they are parameters, one set a position, as the dense matrix always is. Every form writes
its T x T matrices out: this is for comparing structures on short sequences, and no form here is a fast one. Memory of
vandermonde and cauchy while training is O(T^2 N).

Decided here: 1 / sqrt(T) in toeplitz, cauchy and dense, so that sums over independent inputs do not grow with the
length; b a learnt number a head. The residual connection of the authors' shell is D, one a head, from one on.

Shapes: B batch, T time, D width, E inner channels, H heads, P channels of a head, N numbers a token and head in each of
q and k, L longest length of parameters by place, I channels of the convolution (E + 2 H N).
Source: Hwang, Lahoti, Dao, Gu, "Hydra: bidirectional state space models through generalized matrix mixers", 2024,
arXiv:2407.09941, section 2 and the ablations of section 5.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.state import State as BaseState
from seqloom.layers.linear import Linear
from seqloom.mixers._base import Mixer, ParamGroup, Traits
from seqloom.mixers.attention._decayed import Taps
from seqloom.mixers.ssm._ssd import GatedNorm, split_heads

Kind = Literal["toeplitz", "vandermonde", "cauchy", "low_rank", "attention", "dense"]
FREQUENCY = 1e-3
"""w of the Vandermonde matrix, as in the authors' code."""


class MatrixMixer(Mixer):
    """A structured T x T matrix a head in Hydra's shell; sees the whole sequence and has no state."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixer.Config):
        """Options of a matrix mixer."""

        kind: Kind = "low_rank"
        """Structure of the matrix."""
        dependent: bool = True
        """Whether q and k are made of the tokens; False learns them by place. A dense matrix is always by place."""
        length: int = 512
        """Longest sequence where numbers are learnt by place."""
        expand: int = 2
        """Inner channels, as a multiple of the width."""
        head_width: int = 0
        """Channels of a head, a divisor of the inner ones; 0 = 64, or the largest power of two below that divides."""
        state: int = 16
        """Numbers N a token and head in each of q and k; toeplitz has one, dense none."""
        conv: int = 7
        """Taps of the centred convolution; odd, 1 sees the position alone."""
        bias: bool = False
        """Biases of the maps in and out."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """Sees the future; what is learnt by place ends at its length."""
        by_place = not config.dependent or config.kind == "dense"
        return Traits(
            causal="no",
            step="none",
            rollback="none",
            sequence_comm="forbidden",
            bidirectional="native",
            packing="unfold",
            length_bound=config.length if by_place else None,
        )

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Every structure, made of the tokens and by place."""
        kinds: tuple[Kind, ...] = ("toeplitz", "vandermonde", "cauchy", "attention")
        small = {"head_width": 4, "state": 3, "conv": 3}
        return (
            cls.Config(),
            *(cls.Config(kind=kind, **small) for kind in kinds),
            *(cls.Config(kind=kind, dependent=False, length=40, **small) for kind in (*kinds, "low_rank")),
            cls.Config(kind="dense", dependent=False, length=24, expand=1, bias=True),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        self._refuse(options)
        self.inner = E = options.expand * width
        self.heads, self.head_width = split_heads(E, options.head_width)
        self.numbers = {"toeplitz": 1, "dense": 0}.get(options.kind, options.state)
        self.channels = E + (2 * self.heads * self.numbers if options.dependent else 0)
        self.into = Linear(width, E + self.channels, bias=options.bias)
        self.conv = Taps(self.channels, options.conv, centred=True)
        if options.kind == "dense":
            self.matrix = nn.Parameter(torch.randn(self.heads, options.length, options.length))
        elif not options.dependent:
            self.places = nn.Parameter(torch.randn(2, options.length, self.heads, self.numbers))
        if options.kind == "cauchy":
            self.offset = nn.Parameter(torch.zeros(self.heads))
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedNorm(E, gate_last=True)
        self.output = Linear(E, width, bias=options.bias)

    def param_groups(self) -> list[ParamGroup]:
        """The skip gets no weight decay."""
        return [ParamGroup(names=("skip",), weight_decay=0.0)]

    def mix(self, x_BTD: Tensor, state: Any, layout: Layout, context: Tensor | None) -> tuple[Tensor, BaseState | None]:
        """Project, convolve, multiply by the matrices, norm, gate, project."""
        valid_BT = layout.valid_BT(x_BTD.shape[1])
        x_BTD = x_BTD if valid_BT is None else x_BTD.masked_fill(~valid_BT[..., None], 0)
        z_BTE, u_BTI = self.into(x_BTD).split([self.inner, self.channels], -1)
        u_BTI, _ = self.conv(u_BTI, None, layout)
        with torch.autocast(x_BTD.device.type, enabled=False):
            wide_BTI = u_BTI.to(torch.promote_types(u_BTI.dtype, torch.float32))
            x_BHTP = wide_BTI[..., : self.inner].unflatten(-1, (self.heads, -1)).transpose(1, 2)
            M_BHTT = self._matrices(wide_BTI[..., self.inner :], valid_BT)
            y_BHTP = M_BHTT @ x_BHTP + self.skip.to(x_BHTP.dtype)[:, None, None] * x_BHTP
            y_BTE = self.norm(y_BHTP.transpose(1, 2).flatten(2), z_BTE).to(u_BTI.dtype)
        return self.output(y_BTE), None

    def flops(self, length: int) -> int:
        """The maps, the convolution, the matrices' product with the inputs, and theirs where they are products."""
        weights = self.into.weight.numel() + self.output.weight.numel() + self.conv.weight.numel()
        made = self.heads * self.numbers if self.config.kind in ("low_rank", "attention") else 0
        return 2 * length * (weights + length * (self.inner + made))

    def state_bytes(self, length: int) -> int:
        """There is no state."""
        return 0

    def _refuse(self, options: Config) -> None:
        """Options that mean nothing."""
        if options.kind not in get_args(Kind):
            raise ConfigError(f"kind is one of {', '.join(get_args(Kind))}, not {options.kind!r}")
        if options.kind == "dense" and options.dependent:
            raise ConfigError("a dense matrix has no dependent form: set dependent=False")
        for name in ("length", "expand", "state"):
            if getattr(options, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(options, name)}")

    def _matrices(self, qk_BTX: Tensor, valid_BT: Tensor | None) -> Tensor:
        """The matrices (B or 1, H, T, T) for inputs that are zero at pads."""
        length, wide = qk_BTX.shape[1], qk_BTX.dtype
        count_B = torch.full((1,), length, device=qk_BTX.device) if valid_BT is None else valid_BT.sum(1).clamp_min(1)
        share_B111 = count_B.to(wide)[:, None, None, None].rsqrt()
        if self.config.kind == "dense":
            return self.matrix[:, :length, :length].to(wide) * share_B111
        if self.config.dependent:
            q_BHTN, k_BHTN = qk_BTX.unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        else:
            q_BHTN, k_BHTN = self.places[:, None, :length].to(wide).transpose(2, 3)
        if self.config.kind == "toeplitz":
            return _toeplitz(q_BHTN[..., 0], k_BHTN[..., 0]) * share_B111
        if self.config.kind == "vandermonde":
            return _vandermonde(q_BHTN, k_BHTN) * share_B111 / math.sqrt(2 * self.numbers)
        if self.config.kind == "cauchy":
            return _cauchy(q_BHTN, k_BHTN, self.offset.to(wide)) * share_B111 / math.sqrt(self.numbers)
        product_BHTT = q_BHTN @ k_BHTN.mT / math.sqrt(self.numbers)
        if self.config.kind == "low_rank":
            return product_BHTT * share_B111
        if valid_BT is not None:  # not -inf: in a row without positions all of them are masked
            product_BHTT = product_BHTT.masked_fill(~valid_BT[:, None, None], torch.finfo(wide).min)
        return product_BHTT.softmax(-1)


def _toeplitz(q_BHT: Tensor, k_BHT: Tensor) -> Tensor:
    """Entries by the distance: of q on and below the diagonal, of k above."""
    at_T = torch.arange(q_BHT.shape[-1], device=q_BHT.device)
    lag_TT = at_T[:, None] - at_T
    return torch.where(lag_TT >= 0, q_BHT[..., lag_TT.clamp_min(0)], k_BHT[..., (-lag_TT).clamp_min(0)])


def _vandermonde(q_BHTN: Tensor, k_BHTN: Tensor) -> Tensor:
    angle_T = 2 * math.pi * FREQUENCY * torch.arange(q_BHTN.shape[2], device=q_BHTN.device, dtype=q_BHTN.dtype)

    def entry(q_BHT: Tensor, k_BHT: Tensor) -> Tensor:
        return (q_BHT[..., None] * angle_T).cos() - (angle_T[:, None] * k_BHT[..., None, :]).cos()

    return _summed(entry, q_BHTN, k_BHTN)


def _cauchy(q_BHTN: Tensor, k_BHTN: Tensor, offset_H: Tensor) -> Tensor:
    """The inverse of a sum of exponentials, by its logarithm: none of them overflows."""

    def entry(q_BHT: Tensor, k_BHT: Tensor) -> Tensor:
        below_BHT1 = torch.logaddexp(q_BHT, offset_H[:, None])[..., None]
        return torch.exp(-torch.logaddexp(below_BHT1, k_BHT[..., None, :]))

    return _summed(entry, q_BHTN, k_BHTN)


def _summed(entry: Callable[[Tensor, Tensor], Tensor], q_BHTN: Tensor, k_BHTN: Tensor) -> Tensor:
    """Sum entries over N one by one: without gradients only one T x T matrix a head is held."""
    q, k = q_BHTN.unbind(-1), k_BHTN.unbind(-1)
    M_BHTT = entry(q[0], k[0])
    for q_BHT, k_BHT in zip(q[1:], k[1:], strict=True):
        M_BHTT = M_BHTT + entry(q_BHT, k_BHT)
    return M_BHTT
