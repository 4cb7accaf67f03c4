"""What is most alike: the rows of a matrix with the largest products, in memory that does not grow with their number.

Shapes: Q queries, N rows, D width, K neighbours, B queries of a block.
"""

import numpy as np
import polars as pl

CELLS = 4_000_000
"""Products that are held at once."""


def similar(where: pl.DataFrame, queries: pl.DataFrame, asked_Q: np.ndarray, *, alone: bool, top: int) -> pl.DataFrame:
    """``id, rank, neighbour, cosine``: what lies nearest to each query around the middle of where it is looked for.

    Args:
        where: ``id, vector`` of the sequences among which is looked.
        queries: ``id, vector`` of those that are looked for; each has a row.
        asked_Q: Rows of ``queries``.
        alone: Whether both are the same, so that no sequence finds itself.
        top: How many neighbours.
    """
    middle_D = _vectors(where).mean(0)
    top = min(top, len(where) - alone)
    query_QD, where_ND = _unit(queries, middle_D)[asked_Q], _unit(where, middle_D)
    order_QK, cosine_QK = nearest(query_QD, where_ND, asked_Q if alone else None, top)
    asked, names = (np.array(frame["id"].to_list(), object) for frame in (queries, where))
    return pl.DataFrame(
        {
            "id": np.repeat(asked[asked_Q], top).tolist(),
            "rank": np.tile(np.arange(1, top + 1), len(asked_Q)),
            "neighbour": names[order_QK.ravel()].tolist(),
            "cosine": cosine_QK.ravel().clip(-1, 1),
        },
        schema_overrides={"id": pl.String, "neighbour": pl.String},
    )


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


def _unit(frame: pl.DataFrame, middle_D: np.ndarray) -> np.ndarray:
    """Vectors of length 1 around the middle of the data: uncentred, everything is like everything else."""
    vectors = _vectors(frame) - middle_D
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _vectors(frame: pl.DataFrame) -> np.ndarray:
    return frame["vector"].to_numpy().astype(np.float64).reshape(len(frame), -1)
