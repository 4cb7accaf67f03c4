"""Gates within the tiles of the long convolution; see ``kernels/long_conv/_tiles``."""

from typing import Any

import torch
from torch import Tensor

from seqloom.kernels.gated_long_conv import _check
from seqloom.kernels.long_conv import _tiles


def forward(
    v_BTD: Tensor,
    k_DL: Tensor,
    back_DM: Tensor | None = None,
    skip_D: Tensor | None = None,
    pre_BTD: Tensor | None = None,
    post_BTD: Tensor | None = None,
) -> Tensor:
    tile = _tiles.TILE * torch.get_num_threads()
    return _tiles.forward((v_BTD, k_DL, back_DM, skip_D, None), tile, (pre_BTD, post_BTD))


def backward(
    dy_BTD: Tensor,
    v_BTD: Tensor,
    k_DL: Tensor,
    back_DM: Tensor | None = None,
    skip_D: Tensor | None = None,
    pre_BTD: Tensor | None = None,
    post_BTD: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    tile = _tiles.TILE * torch.get_num_threads()
    dgates = tuple(None if x is None else x.new_empty(x.shape) for x in (pre_BTD, post_BTD))
    inputs = (v_BTD, k_DL, back_DM, skip_D, None)
    *made, _ = _tiles.backward(dy_BTD, inputs, tile, (pre_BTD, post_BTD), dgates)  # type: ignore[bad-argument-type]
    dpre_BTD, dpost_BTD = (v_BTD.new_empty(0) if x is None else x for x in dgates)
    return *made, dpre_BTD, dpost_BTD  # type: ignore[bad-return]  (four tensors)


FORWARDS = {"gated_long_conv": forward, "gated_long_conv_backward": backward}


def refuses(*inputs: Any) -> str | None:
    *_, v_BTD, k_DL, back_DM, skip_D, pre_BTD, post_BTD = inputs  # the backward has dy before them
    _check(v_BTD, pre_BTD, post_BTD)
    return _tiles.refuses((v_BTD, k_DL, back_DM, skip_D, None))
