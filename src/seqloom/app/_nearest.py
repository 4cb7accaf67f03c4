"""The rows of a matrix with the largest products, in memory that does not grow with their number.

Shapes: Q queries, N rows, D width, K neighbours, B queries of a block.
"""

import numpy as np

CELLS = 4_000_000
"""Products that are held at once."""


def nearest(
    query_QD: np.ndarray, where_ND: np.ndarray, own_Q: np.ndarray | None, top: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the ``top`` largest products and these, ties by row; ``own_Q``: the row that each query is itself.

    Queries go in blocks of ``CELLS`` products.
    """
    order_QK = np.zeros((len(query_QD), top), np.int64)
    product_QK = np.zeros((len(query_QD), top))
    step = max(1, CELLS // max(len(where_ND), 1))
    for at in range(0, len(query_QD), step):
        block_BN = query_QD[at : at + step] @ where_ND.T
        if own_Q is not None:
            block_BN[np.arange(len(block_BN)), own_Q[at : at + step]] = -np.inf
        chosen_BK = _largest(block_BN, top)
        order_QK[at : at + step] = chosen_BK
        product_QK[at : at + step] = np.take_along_axis(block_BN, chosen_BK, 1)
    return order_QK, product_QK


def _largest(block_BN: np.ndarray, top: int) -> np.ndarray:
    """Columns of the ``top`` largest numbers of each row, the largest first, ties by column: O(N) a row."""
    if 0 < top < block_BN.shape[1]:
        least_B1 = -np.partition(-block_BN, top - 1, axis=1)[:, top - 1 : top]
        few = [np.flatnonzero(row >= least) for row, least in zip(block_BN, least_B1[:, 0], strict=True)]
        picked = [own[np.argsort(-row[own], kind="stable")[:top]] for row, own in zip(block_BN, few, strict=True)]
        return np.stack(picked)
    return np.argsort(-block_BN, axis=1, kind="stable")[:, :top]
