"""Tiles that stay in the cache of the cores at work; see ``_tiles``."""

from typing import Any

import torch
from torch import Tensor

from seqloom.kernels.long_conv import _tiles


def forward(
    u_BTD: Tensor,
    k_DL: Tensor,
    back_DM: Tensor | None = None,
    skip_D: Tensor | None = None,
    before_BSD: Tensor | None = None,
) -> Tensor:
    tile = _tiles.TILE * torch.get_num_threads()
    return _tiles.forward((u_BTD, k_DL, back_DM, skip_D, before_BSD), tile)


def backward(
    dy_BTD: Tensor,
    u_BTD: Tensor,
    k_DL: Tensor,
    back_DM: Tensor | None = None,
    skip_D: Tensor | None = None,
    before_BSD: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    tile = _tiles.TILE * torch.get_num_threads()
    return _tiles.backward(dy_BTD, (u_BTD, k_DL, back_DM, skip_D, before_BSD), tile)


FORWARDS = {"long_conv": forward, "long_conv_backward": backward}


def refuses(*inputs: Any) -> str | None:
    return _tiles.refuses(inputs[-5:])  # long_conv_backward has dy before them
