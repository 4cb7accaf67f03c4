"""Liquid-S4: a state-space model whose input also moves its own transition, as a series in products of inputs.

    exact    x_t = (a + b u_t) x_{t-1} + b u_t        y_t = 2 Re C x_t + s u_t
    series   sum over positions j1 > ... > jp, p >= 1, of  2 Re C b^p a^{t - j1 + gaps} u_{j1} ... u_{jp}
    here     y = sum_{p <= P} K_p * v_p + s u         v_p(t) = u_t u_{t-1} ... u_{t-p+1}        out = GLU(W GELU(y))

    kb  K_p,l = 2 Re sum_n C_n b_n^p a_n^l            pb  the same, but K_p,l = 0 for l > 0 and p > 1: no memory

``shifted`` products are those of the series whose positions are neighbours: exact for the terms they keep, causal,
with a step. The state is that of the linear model, driven by sum_p b^{p-1} v_p, and the last P - 1 inputs. Where the
mixer may look ahead, a second readout weighs the products that end there.

``combinations`` is the paper's own setting (``allcombs`` of its code) and **not causal**, so that it is for whole
sequences with one label: v_p(t) is the product of the t-th of all p-subsets of the positions counted from the row's
end, in the order of the combinatorial number system, so that the first of them are products of the last inputs.
That is what taking T of the subsets of the last few positions and turning them around comes down to.

a and b are a diagonal bank's (S4D's), one of each conjugate pair: in a diagonal basis b^p is a power of each entry,
while the paper, whose S4 has a low rank beside the diagonal, takes that same entrywise power. Its code builds the
degree p + 1 as v_p(t) v_p(t-1), whose inner factors are squares from degree 3 on; here each input counts once.
Shapes: B batch, T time, D width, N modes, P degrees, R readouts, X what a channel remembers.
Source: Hasani, Lechner, Wang, Chahine, Amini, Rus, "Liquid structural state-space models", 2022, arXiv:2209.12951,
section 3 (the expansion, KB and PB).
"""

from dataclasses import dataclass, replace
from functools import reduce
from itertools import accumulate, count, takewhile
from math import comb
from operator import mul
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import pad

from seqloom.core.errors import ConfigError
from seqloom.core.layout import roll
from seqloom.core.steady import derived
from seqloom.kernels.long_conv import long_conv
from seqloom.kernels.long_conv.chunks import history
from seqloom.kernels.vandermonde import vandermonde, vandermonde_transposed
from seqloom.mixers._base import Mixer, Traits
from seqloom.mixers.ssm._diagonal import DiagonalBank, Rule
from seqloom.mixers.ssm._filter import Filter
from seqloom.mixers.ssm._modes import SHORT, Modes
from seqloom.mixers.ssm._output import Output
from seqloom.mixers.ssm._transition import Spectrum

Terms = Literal["kb", "pb"]
Products = Literal["shifted", "combinations"]
MOST = 6
"""Highest degree: beyond, the powers of b are nothing."""


class LiquidS4(Filter):
    """State-space mixer with products of inputs; its state is N / 2 complex numbers a channel and a few inputs."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        """Options of Liquid-S4."""

        state: int = 64
        """State size N of each channel; its N / 2 complex modes stand for conjugate pairs. Even."""
        degree: int = 2
        """Highest number of inputs in a product; 1 is S4D, 6 the most."""
        terms: Terms = "kb"
        """Whether products are remembered as inputs are (kb), or act where they arise (pb)."""
        products: Products = "shifted"
        """Neighbouring inputs; or all subsets of the last inputs, which sees the future: for one label a sequence."""
        init: Spectrum = "legs"
        """Spectrum at the start: evenly spaced, inverse, of HiPPO-LegS, or real."""
        discretisation: Rule = "bilinear"
        """The bilinear (trapezoidal) rule, as in S4, or zero-order hold."""
        steps: tuple[float, float] = (1e-3, 1e-1)
        """Range of the initial step sizes, log-uniform: 1 / step is how many positions a channel remembers."""

    config: Config

    @classmethod
    def traits(cls, config: Any) -> Traits:
        """A filter of products, which is linear at degree 1 alone; combinations count from the row's end."""
        linear = config.degree == 1 and Output.linear(config.activation, config.output)
        known = replace(super().traits(config), lti=linear)
        if config.products == "shifted" or config.degree == 1:
            return known
        return replace(
            known, causal="no", step="none", rollback="none", sequence_comm="forbidden", bidirectional="native"
        )

    @classmethod
    def grid(cls) -> tuple[Mixer.Config, ...]:
        """Option sets that the contract test covers."""
        return (
            cls.Config(),
            cls.Config(state=8, degree=3, terms="pb", init="lin", output="linear"),
            cls.Config(state=8, degree=4, discretisation="zoh", activation="none", output="none"),
            cls.Config(state=8, degree=1, activation="none", output="none"),
            cls.Config(state=8, degree=3, causal=False, activation="none"),
            cls.Config(state=8, degree=3, products="combinations"),
            cls.Config(state=8, terms="pb", products="combinations", causal=False, output="linear"),
        )

    def __init__(self, width: int, config: Config | None = None) -> None:
        super().__init__(width, config)
        options = self.config
        if options.state < 2 or options.state % 2:
            raise ConfigError(f"state must be even and at least 2, not {options.state}: modes come in conjugate pairs")
        if not 1 <= options.degree <= MOST:
            raise ConfigError(f"degree must be 1 to {MOST}, not {options.degree}")
        if options.terms not in get_args(Terms) or options.products not in get_args(Products):
            raise ConfigError(
                f"terms are 'kb' or 'pb' and products 'shifted' or 'combinations', not {options.terms!r} and "
                f"{options.products!r}"
            )
        self.bank = DiagonalBank(
            width, options.state // 2, options.init, options.discretisation, options.steps, self.readouts
        )

    @property
    def timing(self) -> tuple[str, ...]:
        """Step sizes, decays and frequencies."""
        return tuple(f"bank.{name}" for name in self.bank.timing)

    @property
    def remembered_degrees(self) -> int:
        """Degrees whose kernels have a memory."""
        return self.config.degree if self.config.terms == "kb" else 1

    def filters(self, length: int) -> Tensor:
        """The kernels of degree 1 (R, D, length): all that there is of the linear model."""
        return self.bank.kernels(length)

    def rows(self, u_BTD: Tensor, lengths_B: Tensor | None) -> Tensor:
        """Each degree's products by a convolution of their own; what has no memory is a factor."""
        modes, powers_PDN = self._modes()
        products = self._products(u_BTD.to(self.dtype), lengths_B)
        c_PRDN = (modes.c_RDN * powers_PDN[:, None]).to(self.kind)
        k_PRDT = vandermonde(modes.log_a_DN, c_PRDN[: self.remembered_degrees], u_BTD.shape[1])
        y_BTD = self._instant(products, c_PRDN[:, 0]) + self.skip * products[0]
        for v_BTD, k_RDT in zip(products, k_PRDT, strict=False):
            y_BTD = y_BTD + long_conv(v_BTD, k_RDT[0], None if self.config.causal else k_RDT[1])
        return y_BTD

    def remembered(self) -> tuple[int, ...]:
        """The modes as pairs of real numbers, and the last P - 1 inputs."""
        return self.width, self.config.state + self.config.degree - 1

    def resume(self, u_BTD: Tensor, h_BDX: Tensor, lengths_B: Tensor | None) -> tuple[Tensor, Tensor]:
        """Products reach back into the inputs before; the modes go on by the recurrence, or by the convolution."""
        modes, powers_PDN = self._modes()
        modes_BDX, past_BDS = h_BDX.split([self.config.state, self.config.degree - 1], -1)
        h_BDN, past_BSD = torch.view_as_complex(modes_BDX.unflatten(2, (-1, 2)).contiguous()), past_BDS.mT
        products = self._products(u_BTD, lengths_B, past_BSD)
        run = self._steps if u_BTD.shape[1] <= SHORT else self._chunk
        degrees = self.remembered_degrees
        y_BTD, h_BDN = run(modes, powers_PDN[:degrees], products[:degrees], h_BDN, lengths_B)
        y_BTD = y_BTD + self._instant(products, (modes.c_RDN[0] * powers_PDN).to(self.kind))
        kept_BDS = history(u_BTD, past_BSD, self.config.degree - 1, lengths_B).mT
        return y_BTD, torch.cat([torch.view_as_real(h_BDN).flatten(2), kept_BDS], -1)

    def filter_macs(self, length: int) -> int:
        """The kernels' multiply-adds, of every degree that has one."""
        with torch.device("meta"):
            log_a = torch.empty(self.width, self.config.state // 2, dtype=torch.complex128)
            c = torch.empty(self.remembered_degrees, self.readouts, *log_a.shape, dtype=torch.complex64)
        return vandermonde.floor(log_a, c, length).macs

    def flops(self, length: int) -> int:
        """The kernels, the convolution of every degree's products, and the product that mixes channels."""
        with torch.device("meta"):
            u, k = torch.empty(1, length, self.width), torch.empty(self.width, length)
        convolution = long_conv.floor(u, k, None if self.config.causal else k).macs
        macs = self.filter_macs(length) + self.remembered_degrees * convolution
        return 2 * (macs + length * self.after.macs)

    @derived
    def _modes(self) -> tuple[Modes, Tensor]:
        """The linear model, whose c has b in it once, and b^{p-1} (P, D, N)."""
        log_a_DN, a_DN, b_DN = self.bank.factors()
        C_RDN = 2 * torch.view_as_complex(self.bank.readout.double())
        powers = accumulate([b_DN] * (self.config.degree - 1), mul, initial=torch.ones_like(b_DN))
        return Modes(log_a_DN, a_DN, C_RDN * b_DN, self.kind), torch.stack(list(powers))

    def _products(self, u_BTD: Tensor, lengths_B: Tensor | None, past_BSD: Tensor | None = None) -> list[Tensor]:
        """v_1 .. v_P (B, T, D), nothing but zeros at pads."""
        degree, length = self.config.degree, u_BTD.shape[1]
        if self.config.products == "shifted":
            all_BED = pad(u_BTD, (0, 0, degree - 1, 0)) if past_BSD is None else torch.cat([past_BSD, u_BTD], 1)
            shifts = [all_BED[:, degree - 1 - back :][:, :length] for back in range(degree)]
            return list(accumulate(shifts, mul))
        last_first_BTD = (u_BTD if lengths_B is None else roll(u_BTD, lengths_B)).flip(1)
        found = [u_BTD]
        for p in range(2, degree + 1):
            ages_TP, some_T = _subsets(length, p, u_BTD.device)
            v_BTD = reduce(mul, (last_first_BTD[:, ages_T] for ages_T in ages_TP.unbind(1)))
            found.append(v_BTD * some_T[:, None])
        if lengths_B is None:
            return found
        valid_BT1 = (torch.arange(length, device=u_BTD.device) < lengths_B[:, None])[..., None]
        return [v_BTD * valid_BT1 for v_BTD in found]

    def _instant(self, products: list[Tensor], c_PDN: Tensor) -> Tensor:
        """What products without a memory add where they arise: 2 Re C b^p v_p."""
        y_BTD = torch.zeros_like(products[0])
        for v_BTD, c_DN in list(zip(products, c_PDN, strict=True))[self.remembered_degrees :]:
            y_BTD = y_BTD + v_BTD * c_DN.real.sum(-1)
        return y_BTD

    def _steps(
        self, modes: Modes, powers_PDN: Tensor, products: list[Tensor], h_BDN: Tensor, lengths_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """A few columns, one after the other."""
        a_DN, c_DN, powers_PDN = (z.to(self.kind) for z in (modes.a_DN, modes.c_RDN[0], powers_PDN))
        outputs = []
        for at, v_BDP in enumerate(torch.stack(products, -1).unbind(1)):
            drives = [v_BD[..., None] * power_DN for v_BD, power_DN in zip(v_BDP.unbind(-1), powers_PDN, strict=True)]
            new_BDN = h_BDN * a_DN + sum(drives)
            outputs.append((new_BDN * c_DN).real.sum(-1))
            h_BDN = new_BDN if lengths_B is None else torch.where((at < lengths_B)[:, None, None], new_BDN, h_BDN)
        return torch.stack(outputs, 1), h_BDN

    def _chunk(
        self, modes: Modes, powers_PDN: Tensor, products: list[Tensor], h_BDN: Tensor, lengths_B: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Many columns: the linear model as everywhere, the degrees above it with their powers of b."""
        k_DT, echo_BTD, after_BDN2 = modes.carry(products[0], torch.view_as_real(h_BDN), lengths_B)
        y_BTD, h_BDN = long_conv(products[0], k_DT) + echo_BTD, torch.view_as_complex(after_BDN2)
        for v_BTD, power_DN in zip(products[1:], powers_PDN[1:], strict=True):
            k_DT = vandermonde(modes.log_a_DN, (modes.c_RDN[0] * power_DN).to(self.kind), v_BTD.shape[1])
            y_BTD = y_BTD + long_conv(v_BTD, k_DT)
            last_first_BTD = (v_BTD if lengths_B is None else roll(v_BTD, lengths_B)).flip(1)
            new_BDN = vandermonde_transposed(modes.log_a_DN, last_first_BTD.transpose(1, 2))
            h_BDN = h_BDN + power_DN.to(self.kind) * new_BDN
        return y_BTD, h_BDN


def _subsets(length: int, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The first T subsets of 0, 1, 2, ... (T, P) in the combinatorial number system, and which lie below T."""
    rest_T = torch.arange(length, device=device)
    columns = []
    for k in range(size, 0, -1):
        table_N = torch.tensor([*takewhile(lambda n: n < length, (comb(n, k) for n in count()))], device=device)
        column_T = torch.searchsorted(table_N, rest_T, right=True) - 1
        rest_T = rest_T - table_N[column_T]
        columns.append(column_T)
    ages_TP = torch.stack(columns, 1)
    some_T = ages_TP[:, 0] < length
    return ages_TP.clamp_max(length - 1), some_T
