"""A counting sort, and rows copied whole."""

from typing import Any

import numba
import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels._numba import run
from seqloom.kernels.route import mismatch, routed_shapes


def refuses(*inputs: Any) -> str | None:
    if isinstance(inputs[1], int):  # route
        return None if inputs[0].dtype == torch.int64 else f"groups of {inputs[0].dtype}"
    if inputs[0].dtype not in (torch.float32, torch.float64):
        return f"no {inputs[0].dtype} in numpy's loops"
    return mismatch(*inputs)


def forward(group_N: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    group_N = group_N.contiguous()
    place_N, order_N, count_G = torch.empty_like(group_N), torch.empty_like(group_N), group_N.new_zeros(groups)
    bad = _sort(group_N.numpy(), place_N.numpy(), order_N.numpy(), count_G.numpy())
    if bad >= 0:
        raise ConfigError(f"route: groups lie in -1..{groups - 1}, not {int(group_N.min())}..{int(group_N.max())}")
    return place_N, order_N, count_G


def taken(x_NE: Tensor, index_P: Tensor, back_NK: Tensor) -> Tensor:
    x_NE, index_P = x_NE.contiguous(), index_P.contiguous()
    if len(index_P) and int(index_P.max()) >= len(x_NE):
        raise ConfigError(f"routed: there is no item {int(index_P.max())} among {len(x_NE)}")
    y_PE = routed_shapes(x_NE, index_P, back_NK)
    run(_take_serial, _take_parallel, y_PE.numel(), x_NE.numpy(), index_P.numpy(), y_PE.numpy())
    return y_PE


FORWARDS = {"route": forward, "routed": taken}


@numba.njit(cache=True)
def _sort(group, place, order, count):
    N, G = len(group), len(count)
    for n in range(N):
        g = group[n]
        if g >= G or g < -1:
            return n
        if g >= 0:
            place[n] = count[g]
            count[g] += 1
        else:
            place[n] = -1
    start = 0
    for g in range(G):
        start += count[g]
    begin = count.cumsum()
    last = start
    for n in range(N):
        g = group[n]
        if g >= 0:
            order[begin[g] - count[g] + place[n]] = n
        else:
            order[last] = n
            last += 1
    return -1


def _take(x, index, y):
    for p in numba.prange(len(index)):
        n = index[p]
        if n < 0:
            y[p] = 0
        else:
            y[p] = x[n]


_take_serial = numba.njit(cache=True)(_take)
_take_parallel = numba.njit(cache=True, parallel=True)(_take)
