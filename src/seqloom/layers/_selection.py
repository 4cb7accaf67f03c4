"""Score cheaply, keep the best, look exactly at what is left.

    index = best(score, k)                 the k largest, -1 where there are fewer
    o = attend(q, k, v, index)             exact softmax over the listed keys alone

With k = all it is full attention. What is hidden scores -inf and is never listed.

Shapes: B batch, H heads, T queries, S keys, L listed keys, K key width, V value width.
Source: the pattern of Zhou et al., "Informer", 2021, arXiv:2012.07436 (queries), and Feng et al., "Long-sequence
recommendation models need decoupled embeddings", 2024, arXiv:2410.02604 (a user's past).
"""

import torch
from torch import Tensor

from seqloom.core.errors import ConfigError
from seqloom.kernels.sparse_attention import sparse_attention


def best(score: Tensor, count: int, seen: Tensor | None = None) -> Tensor:
    """Places of the ``count`` largest of the last axis, the largest first; of equal ones, the first.

    -1 stands where nothing is left: fewer places than ``count`` that are seen and score more than -inf.
    """
    if count < 0:
        raise ConfigError(f"best: count must not be negative, as {count} is")
    score = score if seen is None else score.masked_fill(~seen, -torch.inf)
    order = score.argsort(dim=-1, descending=True, stable=True)[..., :count]
    order = order.masked_fill(score.gather(-1, order) == -torch.inf, -1)
    missing = count - order.shape[-1]
    return order if not missing else torch.cat([order, order.new_full((*order.shape[:-1], missing), -1)], -1)


def attend(q_BHTK: Tensor, k_BGSK: Tensor, v_BGSV: Tensor, index_BHTL: Tensor, scale: float | None = None) -> Tensor:
    """Softmax attention over the listed keys (B, H, T, V); zeros where a list is empty."""
    return sparse_attention(q_BHTK, k_BGSK, v_BGSV, index_BHTL, None, 1, 1, 0, 0, scale)[0]
