"""Distributions after every prefix, the empty one too, and what the claim ``next_element`` measures of them.

    brier = mean over prefixes of sum_w (p(w) - 1[w = next])^2        bits = mean of -log2 p(next)

The end is an outcome like any other; a symbol that training never saw is <unk>, whose mass every model reserves.
Shapes: B rows, T columns, Q prefixes of a block, V vocabulary, N sequences.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from seqloom.core.batch import Batch
from seqloom.core.layout import Layout
from seqloom.core.specials import SPECIALS
from seqloom.data.ragged import Ragged
from seqloom.evaluation.brier import brier
from seqloom.evaluation.unseen_mass import unseen_mass
from seqloom.models._base import Model
from seqloom.models.classical._base import CELLS
from seqloom.models.classical._counts import predictable
from seqloom.training.prepare import Prepared

EXACT = 1e-12
Block = tuple[np.ndarray, np.ndarray, np.ndarray]


def measured(model: Any, data: Prepared, closed_VV: np.ndarray | None = None) -> dict[str, float]:
    """Scores on the test part; with ``closed_VV``, how many prefixes differ from that table of last symbols."""
    vocabulary = data.sizes.vocabulary
    mask_V = predictable(vocabulary)
    briers, bits, off, least, differ = [], [], 0.0, 1.0, 0
    for log_QV, target_Q, last_Q in blocks(model, data):
        p_QV = np.exp(log_QV)
        briers.append(brier(log_QV, target_Q, each=True))
        bits.append(-log_QV[np.arange(len(target_Q)), target_Q] / np.log(2))
        off = max(off, float(np.abs(p_QV[:, mask_V].sum(1) - 1).max()))
        least = min(least, float(p_QV[:, SPECIALS.unk].min()))
        if closed_VV is not None:
            differ += int((np.abs(p_QV - closed_VV[last_Q]).max(1) > EXACT).sum())
    found = {
        "brier": float(np.concatenate(briers).mean()),
        "bits": float(np.concatenate(bits).mean()),
        "prefixes": float(sum(map(len, briers))),
        "sequences": float(len(data.train) + len(data.valid) + len(data.test)),
        "alphabet": float(vocabulary - SPECIALS.count),
        "mass_error": off,
        "least_unseen": least,
    }
    return found if closed_VV is None else {**found, "differ": float(differ)}


def blocks(model: Any, data: Prepared) -> Iterator[Block]:
    """Log-probabilities (Q, V), what came (Q,) and the last symbol (Q,), prefixes of like sequences together."""
    tokens, spare = _tokens(data.test.tokens), spare_mass(data)
    width_N = tokens.lengths + 1
    order = np.argsort(-width_N, kind="stable")
    while len(order):
        most = max(1, CELLS // (int(width_N[order[0]]) * data.sizes.vocabulary))
        group, order = order[:most], order[most:]
        read_BT = np.full((len(group), int(width_N[group[0]])), SPECIALS.pad, np.int64)
        next_BT = np.full_like(read_BT, SPECIALS.eos)
        read_BT[:, 0] = SPECIALS.bos
        for row, number in enumerate(group):
            read_BT[row, 1 : width_N[number]] = next_BT[row, : width_N[number] - 1] = tokens[number]
        valid_BT = np.arange(read_BT.shape[1]) < width_N[group, None]
        log_QV = _logits(model, read_BT, width_N[group])[valid_BT]
        yield (_predictive(log_QV, spare) if isinstance(model, Model) else log_QV), next_BT[valid_BT], read_BT[valid_BT]


@torch.no_grad()
def _logits(model: Any, read_BT: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
    state = model.start(Batch(index_B=torch.zeros(len(read_BT), dtype=torch.long)))
    layout = Layout(lengths_B=torch.from_numpy(lengths_B))
    return model.step(torch.from_numpy(read_BT), state, layout=layout)[0].double().numpy()


def _predictive(logits_QV: np.ndarray, spare: float) -> np.ndarray:
    """A network's log-probabilities over what can follow: <unk> has the spare mass, for training never showed one."""
    log_QV = logits_QV.copy()
    log_QV[:, [*SPECIALS.unpredictable, SPECIALS.unk]] = -np.inf
    log_QV -= np.logaddexp.reduce(log_QV, axis=1, keepdims=True)
    log_QV += np.log1p(-spare)
    log_QV[:, SPECIALS.unk] = np.log(spare)
    return log_QV


def spare_mass(data: Prepared) -> float:
    """Mass of a symbol that training never saw; the vocabulary is that of the training part."""
    count_V = np.bincount(_tokens(data.train.tokens).flat, minlength=data.sizes.vocabulary)[SPECIALS.count :]
    return unseen_mass(count_V)


def chain(data: Prepared, strength: float, pseudocount: float) -> np.ndarray:
    """The Markov chain of order 1 in closed form (V, V): a row a last symbol; v without successors counts all symbols.

    p(w | v) = (c(v w) + m q(w)) / (c(v) + m)        q(w) = (c(w) + a) / (n + a |A|)
    """
    vocabulary, tokens = data.sizes.vocabulary, _tokens(data.train.tokens)
    count_VV = np.zeros((vocabulary, vocabulary))
    for row in tokens:
        whole = np.concatenate([[SPECIALS.bos], row, [SPECIALS.eos]])
        np.add.at(count_VV, (whole[:-1], whole[1:]), 1)
    mask_V, count_V = predictable(vocabulary), count_VV.sum(0)
    q_V = np.where(mask_V, (count_V + pseudocount) / (count_V.sum() + pseudocount * mask_V.sum()), 0)
    count_VV[count_VV.sum(1) == 0] = count_V
    return (count_VV + strength * q_V) / (count_VV.sum(1, keepdims=True) + strength)


def _tokens(ragged: Ragged | None) -> Ragged:
    assert ragged is not None  # the logs are symbols
    return ragged
