"""The answers of models of symbols and classes as frames: ids and order are kept.

Shapes: N sequences, V vocabulary, C classes, K likeliest.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch

from seqloom.app._engines import BITS, Engine
from seqloom.core.batch import Batch
from seqloom.core.errors import ConfigError, SeqloomError
from seqloom.core.specials import SPECIALS
from seqloom.core.state import State
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences

Shown = Callable[[int], str]
"""How an id is written."""


@dataclass(frozen=True)
class Following:
    """What comes next: the likeliest symbols with their probabilities, and the state behind them."""

    symbols: tuple[str, ...]
    probabilities: tuple[float, ...]
    state: State = field(repr=False)


def ahead(engine: Engine, ids: list[int] | None, state: State | None, top: int, shown: Shown) -> Following:
    """Feed the ids of one symbol and see what comes next; the state goes on from there."""
    stepper = engine.stepper
    if state is None:
        state = stepper.start(Batch(index_B=torch.zeros(1, dtype=torch.long)))
        opening = [SPECIALS.bos]
    else:
        state, opening = state.fork(), []  # the caller may go on from the old one in another way
    fed = opening + (ids or [])
    if not fed:
        raise ConfigError("nothing to feed: give a symbol, or begin anew without a state")
    device = getattr(getattr(engine, "model", None), "device", "cpu")
    with torch.no_grad():
        logits, after = stepper.step(torch.tensor([fed], device=device), state)
    p_V = logits[0, -1].double().exp().cpu().numpy()
    p_V[SPECIALS.unk] = 0
    order = np.argsort(-p_V, kind="stable")[:top].tolist()
    return Following(tuple(map(shown, order)), tuple(p_V[order].tolist()), after)


def following(engine: Engine, asked: Sequences, examples: Examples, top: int, shown: Shown) -> pl.DataFrame:
    """``id, rank, symbol, probability``: what comes next, most likely first."""
    p_NV = np.exp(engine.following(examples))
    p_NV[:, SPECIALS.unk] = 0  # "something new" is no symbol that one could name
    top = min(top, p_NV.shape[1] - len(SPECIALS.unpredictable) - 1)
    order_NK = np.argsort(-p_NV, axis=1, kind="stable")[:, :top]
    return pl.DataFrame(
        {
            "id": repeated(asked.ids, np.full(len(asked), top)),
            "rank": np.tile(np.arange(1, top + 1), len(asked)),
            "symbol": [shown(id) for id in order_NK.ravel().tolist()],
            "probability": np.take_along_axis(p_NV, order_NK, 1).ravel(),
        },
        schema_overrides={"id": pl.String, "symbol": pl.String},
    )


def told_apart(engine: Engine, asked: Sequences, examples: Examples) -> pl.DataFrame:
    """``id, class, probability`` and one column ``p(NAME)`` a class."""
    classes = engine.blueprint.classes
    p_NC = np.exp(engine.classify(examples))
    best_N = p_NC.argmax(1) if len(p_NC) else np.zeros(0, int)
    columns = {f"p({name})": p_NC[:, at] for at, name in enumerate(classes)}
    chosen = [classes[at] for at in best_N]
    return pl.DataFrame(
        {"id": asked.ids, "class": chosen, "probability": p_NC.max(1, initial=0.0), **columns},
        schema_overrides={"id": pl.String, "class": pl.String},
    )


def class_bits(engine: Engine, asked: Sequences, examples: Examples) -> pl.DataFrame:
    """``id, label, class, bits`` of the true class, for data with labels."""
    if asked.labels is None:
        raise SeqloomError("these data have no labels to score against; use predict")
    classes = engine.blueprint.classes
    log_NC = engine.classify(examples)
    number = {name: at for at, name in enumerate(classes)}
    at_N = [number.get(label, -1) for label in asked.labels]
    bits = [-log_NC[row, at] * BITS if at >= 0 else np.inf for row, at in enumerate(at_N)]
    chosen = [classes[at] for at in (log_NC.argmax(1) if len(log_NC) else [])]
    return pl.DataFrame(
        {"id": asked.ids, "label": asked.labels, "class": chosen, "bits": np.array(bits, np.float64)},
        schema_overrides={"id": pl.String, "label": pl.String},
    )


def surprise(bits: Ragged, asked: Sequences, examples: Examples, shown: Shown) -> pl.DataFrame:
    """``id, position, symbol, bits`` of every predicted symbol."""
    eos = np.array([SPECIALS.eos])
    ids, at = [], []
    for example in examples:
        own = np.concatenate([example.tokens[not example.opens :], eos[: int(example.closes)]])
        ids.append(own)
        at.append(np.arange(1, len(own) + 1) + (not example.opens))
    return pl.DataFrame(
        {
            "id": repeated(asked.ids, bits.lengths),
            "position": np.concatenate(at) if at else [],
            "symbol": [shown(id) for own in ids for id in own.tolist()],
            "bits": bits.flat,
        },
        schema_overrides={"id": pl.String, "symbol": pl.String, "position": pl.Int64},
    )


def sums(bits: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """Bits of each sequence, and how many symbols or values they are of."""
    count_N = bits.lengths
    return np.add.reduceat(np.append(bits.values, 0), bits.offsets[:-1]) * (count_N > 0), count_N


def repeated(ids: list[str], counts_N: np.ndarray) -> list[str]:
    """Every id as often as its count says."""
    return np.array(ids, object)[np.repeat(np.arange(len(ids)), counts_N)].tolist()
