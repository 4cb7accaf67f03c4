"""How sure a model is of each prediction, beside how often it is right.

    symbols    probability of the likeliest symbol            the likeliest symbol came
    values     share s of the central interval                the value lies inside it, s = 0.1, 0.2, .. 0.9

Shapes: N sequences, L predictions of all, T steps of one sequence, V vocabulary, P predicted channels, K parameters of
a distribution, S shares.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from seqloom.app import _scoring
from seqloom.app._engines import Engine, Network
from seqloom.app._values import ValueEngine
from seqloom.core.batch import Batch
from seqloom.data.examples import Examples
from seqloom.evaluation._reliability import Reliability
from seqloom.evaluation.calibration import calibration
from seqloom.models.classical._base import CELLS

SHARES = np.arange(1, 10) / 10


def curve(confidence_L: np.ndarray, hit_L: np.ndarray) -> Reliability | None:
    """The reliability curve of what was said with these probabilities; None where nothing was."""
    if not len(confidence_L):
        return None
    with np.errstate(divide="ignore"):
        said_L2 = np.log(np.stack([np.minimum(confidence_L, 1.0), np.zeros(len(confidence_L))], 1))
    return calibration(said_L2, ~np.asarray(hit_L, bool))


@torch.no_grad()
def sure(engine: Engine, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the likeliest symbol before every symbol (L,), and whether it came (L,); in any order."""
    blocks = _network(engine, examples) if isinstance(engine, Network) else _counted(engine, examples)
    confidence, hits = [np.zeros(0)], [np.zeros(0, bool)]
    for log_TV, target_T in blocks:
        confidence.append(np.exp(log_TV.max(-1)))
        hits.append(log_TV.argmax(-1) == target_T)
    return np.concatenate(confidence), np.concatenate(hits)


def _network(engine: Network, examples: Examples) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Log-probabilities as the scores have them, with the same windows."""
    b, rows = engine.blueprint, _scoring.rows_of(examples)
    pieces = [p for i, row in enumerate(rows) if len(row) > 1 for p in _scoring.cuts(len(row) - 1, b.window, i)]
    for group, outputs in _scoring.answers(engine.model, rows, pieces):
        log_BTV = _scoring.predictive(outputs.logits, b.unseen).cpu()
        for log_TV, p in zip(log_BTV, group, strict=True):
            tokens = rows[p.sequence].tokens
            if tokens is not None:
                yield log_TV[p.from_ - p.begin : p.end - p.begin].numpy(), tokens[p.from_ + 1 : p.end + 1]


def _counted(engine: Engine, examples: Examples) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Log-probabilities of a classical model, block by block, so that a long sequence needs no more memory."""
    stepper, step = engine.stepper, max(1, CELLS // engine.blueprint.sizes.vocabulary)
    for row in _scoring.rows_of(examples):
        line: Any = row.tokens
        state = stepper.start(Batch(index_B=torch.zeros(1, dtype=torch.long)))
        for at in range(0, len(line) - 1, step):
            fed = line[at : min(at + step, len(line) - 1)]
            log_1TV, state = stepper.step(torch.from_numpy(fed)[None], state)
            yield log_1TV[0].numpy(), line[at + 1 : at + 1 + len(fed)]


@torch.no_grad()
def inside(engine: ValueEngine, examples: Examples) -> Reliability | None:
    """How many values lie inside the central intervals of a model, by the share that these promise."""
    parameters_LPK, came_LP, _ = engine.distributions(examples)
    if not came_LP.numel():
        return None
    parameters_LPK, came_LP = parameters_LPK.double(), came_LP.double()
    held_S = np.zeros(len(SHARES))
    for at, share in enumerate(SHARES.tolist()):
        ends = torch.tensor([(1 - share) / 2, (1 + share) / 2], dtype=torch.float64)
        low_LP, high_LP = (engine.head.quantile(parameters_LPK, end) for end in ends)
        held_S[at] = ((came_LP >= low_LP) & (came_LP <= high_LP)).double().mean().item()
    error = float(np.abs(held_S - SHARES).mean())
    return Reliability(error, SHARES, held_S, np.full(len(SHARES), came_LP.numel()))
