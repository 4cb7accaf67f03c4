"""The state-space family beside the bare convolution of its size: kernel, convolution, forward and backward."""

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor

from seqloom.mixers._base import Mixer
from seqloom.mixers.ssm.dss import DSS
from seqloom.mixers.ssm.gss import GSS
from seqloom.mixers.ssm.h3 import H3
from seqloom.mixers.ssm.liquid_s4 import LiquidS4
from seqloom.mixers.ssm.lru import LRU
from seqloom.mixers.ssm.s4d import S4D
from seqloom.testing.benchmark import Case
from seqloom.testing.mixers import check_mixer

FLOOR = "bare rfft, multiply, irfft on (B, D, T)"
BARE = {"activation": "none", "output": "none"}
FILTERS: dict[str, Mixer.Config] = {
    "dss, 64 modes": DSS.Config(**BARE),
    "dss, 32 modes": DSS.Config(state=32, **BARE),
    "dss softmax, 64 modes": DSS.Config(form="softmax", **BARE),
    "s4d, 32 modes": S4D.Config(**BARE),
    "lru, 64 modes": LRU.Config(**BARE),
    "liquid_s4 kb, degree 2": LiquidS4.Config(**BARE),
    "liquid_s4 pb, degree 2": LiquidS4.Config(terms="pb", **BARE),
}
LAYERS: dict[str, Mixer.Config] = {
    "gss, 512 modes": GSS.Config(),
    "dss, 512 modes": DSS.Config(state=512),
    "dss, 64 modes": DSS.Config(),
    "h3": H3.Config(),
    "h3, heads of 8": H3.Config(head_width=8),
}


@cache
def check() -> None:
    for config in (*FILTERS.values(), *LAYERS.values()):
        check_mixer(config)


def cases() -> Iterator[Case]:
    yield filters(4, 4096, 256)
    yield layers(4, 4096, 256)


def bare(u_BDT: Tensor, k_DT: Tensor) -> Tensor:
    n = 2 * u_BDT.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(u_BDT, n) * torch.fft.rfft(k_DT, n), n)[..., : u_BDT.shape[-1]]


def filters(B: int, T: int, D: int) -> Case:
    """Kernel and convolution alone: nothing mixes channels."""
    u, dy, k = torch.randn(B, D, T).requires_grad_(), torch.randn(B, D, T), torch.randn(D, T).requires_grad_()
    arms = trained(FILTERS, B, T, D)
    arms[FLOOR] = lambda: torch.autograd.grad(bare(u, k), (u, k), dy)
    return Case(f"filters forward + backward ({B}, {T}, {D})", arms, FLOOR, check, goal=1.5, rounds=5)


def layers(B: int, T: int, D: int) -> Case:
    """Whole layers. GSS is claimed to take half of DSS's time, where transforms are slow beside matrix products."""
    arms = trained(LAYERS, B, T, D)
    return Case(f"layers forward + backward ({B}, {T}, {D})", arms, "dss, 512 modes", check, rounds=3)


def trained(configs: dict[str, Mixer.Config], B: int, T: int, D: int) -> dict[str, Callable[[], object]]:
    x, dy = torch.randn(B, T, D).requires_grad_(), torch.randn(B, T, D)

    def arm(layer: Mixer) -> Callable[[], object]:
        return lambda: torch.autograd.grad(layer(x)[0], (x, *layer.parameters()), dy)

    return {label: arm(config.build(D)) for label, config in configs.items()}
