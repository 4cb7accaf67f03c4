"""One class for everything that was fitted, neural or classical: predict, score, generate, embed, similar, step, save.

    model.safetensors   what was learnt            config.json   how the model is built
    vocabulary.json     the tokenizer              run.json      how it was trained, on what
    card.md             for people                 metrics.json  the figures of the test part

Answers are polars frames that keep the ids and the order of what was asked. Nothing in a folder is ever unpickled.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from seqloom.app._engines import Blueprint, Engine
from seqloom.app._generate import generate
from seqloom.app._nearest import nearest
from seqloom.app.data import in_pieces, sequences_of
from seqloom.app.device import device_named
from seqloom.core.batch import Batch
from seqloom.core.errors import CheckpointError, ConfigError, DataError, SeqloomError
from seqloom.core.specials import NAMES, SPECIALS
from seqloom.core.state import State
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.tokenizers._base import Tokenizer
from seqloom.training import checkpoint
from seqloom.training.run import Run

WEIGHTS, CONFIG, VOCABULARY, RUN, METRICS = (
    "model.safetensors",
    "config.json",
    "vocabulary.json",
    "run.json",
    "metrics.json",
)
BITS = 1 / np.log(2)


@dataclass(frozen=True)
class Following:
    """What comes next: the likeliest symbols with their probabilities, and the state behind them."""

    symbols: tuple[str, ...]
    probabilities: tuple[float, ...]
    state: State = field(repr=False)


class Fitted:
    """A trained model with everything that it needs to be used."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        run: Run,
        *,
        metrics: dict[str, Any] | None = None,
        files: dict[str, str] | None = None,
    ) -> None:
        """Keep the parts.

        Args:
            engine: The model.
            tokenizer: What makes symbols.
            run: How it was trained.
            metrics: Figures of the test part.
            files: Further text files of the model's folder by name, such as ``card.md``.
        """
        self.engine, self.tokenizer, self.run = engine, tokenizer, run
        self.metrics, self.files = metrics or {}, files or {}

    def __repr__(self) -> str:
        return f"Fitted({self.task}, {type(self.run.model).__qualname__}, {self.engine.parameters:,} parameters)"

    @property
    def task(self) -> str:
        """Next or classify."""
        return self.engine.blueprint.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that the model tells apart."""
        return self.engine.blueprint.classes

    def predict(self, data: Any, *, top: int = 5) -> pl.DataFrame:
        """What comes next, or which class.

        Args:
            data: A path, ``sample:NAME``, a DataFrame, lists of symbols, strings, or Sequences.
            top: Task next: how many of the likeliest symbols.

        Returns:
            Task next: ``id, rank, symbol, probability``, ``top`` rows a sequence; ``<eos>`` = the sequence ends here.
            Task classify: ``id, class, probability`` and one column ``p(NAME)`` a class.
        """
        _positive(top=top)
        asked, ragged = self._encoded(data)
        if self.task == "classify":
            p_NC = np.exp(self.engine.classify(ragged))
            best_N = p_NC.argmax(1) if len(p_NC) else np.zeros(0, int)
            columns = {f"p({name})": p_NC[:, at] for at, name in enumerate(self.classes)}
            chosen = [self.classes[at] for at in best_N]
            return pl.DataFrame({"id": asked.ids, "class": chosen, "probability": p_NC.max(1, initial=0.0), **columns})
        p_NV = np.exp(self.engine.following(ragged, asked.opens))
        p_NV[:, SPECIALS.unk] = 0  # "something new" is no symbol that one could name
        top = min(top, p_NV.shape[1] - len(SPECIALS.unpredictable) - 1)
        order_NK = np.argsort(-p_NV, axis=1, kind="stable")[:, :top]
        rows = np.repeat(np.arange(len(asked)), top)
        return pl.DataFrame(
            {
                "id": np.array(asked.ids, object)[rows].tolist(),
                "rank": np.tile(np.arange(1, top + 1), len(asked)),
                "symbol": [self._symbol(id) for id in order_NK.ravel().tolist()],
                "probability": np.take_along_axis(p_NV, order_NK, 1).ravel(),
            },
            schema_overrides={"id": pl.String, "symbol": pl.String},
        )

    def score(self, data: Any) -> pl.DataFrame:
        """How well each sequence fits: the fewer bits, the more it is like the training data.

        Returns:
            Task next: ``id, symbols, bits, bits_per_symbol`` (the end symbol counts). Task classify, for data with
            labels: ``id, label, class, bits`` (of the true class; a class that training never saw costs infinity).
        """
        asked, ragged = self._encoded(data)
        if self.task == "classify":
            return self._score_classes(asked, ragged)
        bits = bits_of(self.engine.score(ragged, asked.opens, asked.closes)[0])
        count = bits.lengths
        total = np.add.reduceat(np.append(bits.values, 0), bits.offsets[:-1]) * (count > 0)
        return pl.DataFrame(
            {"id": asked.ids, "symbols": count, "bits": total, "bits_per_symbol": total / np.maximum(count, 1)},
            schema_overrides={"id": pl.String},
        )

    def surprise(self, data: Any) -> pl.DataFrame:
        """Bits of every single symbol: ``id, position, symbol, bits``; where in a sequence it gets odd."""
        asked, ragged = self._encoded(data)
        bits = bits_of(self.engine.score(ragged, asked.opens, asked.closes)[0])
        rows = np.repeat(np.arange(len(bits)), bits.lengths)
        eos = np.array([SPECIALS.eos])
        ids = [
            np.concatenate([tokens[not first :], eos if last else eos[:0]])
            for tokens, first, last in zip(ragged, asked.opens, asked.closes, strict=True)
        ]
        at = [
            np.arange(1 + (not first), 1 + (not first) + len(own)) for own, first in zip(ids, asked.opens, strict=True)
        ]
        return pl.DataFrame(
            {
                "id": np.array(asked.ids, object)[rows].tolist(),
                "position": np.concatenate(at) if at else [],
                "symbol": [self._symbol(id) for own in ids for id in own.tolist()],
                "bits": bits.flat,
            },
            schema_overrides={"id": pl.String, "symbol": pl.String, "position": pl.Int64},
        )

    def generate(
        self,
        n: int = 1,
        *,
        prompts: Any = None,
        limit: int = 200,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 7,
    ) -> pl.DataFrame:
        """Write new sequences.

        Args:
            n: How many; with prompts, how many for each.
            prompts: Sequences to go on from; anything that ``predict`` takes.
            limit: Most new symbols of one.
            temperature: Below 1 likelier, above 1 wilder; 0 = always the likeliest symbol.
            top_k: Draw from so many likeliest symbols; 0 = from all.
            top_p: Draw from the likeliest symbols that hold this share of the probability.
            seed: The same seed gives the same sequences.

        Returns:
            ``id, sequence, ended``: the prompt with what was written, and whether the model ended it itself.
        """
        if self.task != "next":
            raise ConfigError("a classifier writes no sequences: fit with --task next")
        _positive(n=n)
        asked = None if prompts is None else self._encoded(prompts)
        rows = asked[1] if asked is not None else Ragged.of([[]])
        ids = asked[0].ids if asked is not None else ["generated"]
        repeated = rows.select(np.repeat(np.arange(len(rows)), n))
        numbered = [id if n == 1 else f"{id}/{number}" for id in ids for number in range(1, n + 1)]
        written, ended = generate(
            self.engine.stepper, repeated, limit=limit, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
        )
        text = [self.tokenizer.render(line) for line in written]
        return pl.DataFrame(
            {"id": numbered, "sequence": text, "ended": ended},
            schema={"id": pl.String, "sequence": pl.String, "ended": pl.Boolean},
        )

    def embed(self, data: Any) -> pl.DataFrame:
        """One vector a sequence: ``id, vector``.

        Networks: the mean of the last layer over the positions (classifiers: what their head reads). Classical models:
        the mean of their predictions over the positions, one number a symbol. A classical classifier: bits per symbol
        under each class, centred.
        """
        asked, ragged = self._encoded(data)
        vectors = self.engine.vectors(ragged, asked.opens, asked.closes).astype(np.float32)
        kind = pl.Array(pl.Float32, vectors.shape[1] if len(vectors) else 0)
        return pl.DataFrame(
            {"id": asked.ids, "vector": pl.Series(vectors, dtype=kind)}, schema_overrides={"id": pl.String}
        )

    def similar(self, data: Any, *, to: Any = None, id: str | None = None, top: int = 5) -> pl.DataFrame:
        """The most similar sequences of ``data``, by the cosine of their vectors, centred on the mean of ``data``.

        Args:
            data: Where to look. One long sequence (a genome) is cut into pieces, whose ids say where they lie.
            to: What to look for; None = every sequence of ``data``, which then does not find itself.
            id: Look only for what is like the sequence with this id.
            top: How many.

        Returns:
            ``id, rank, neighbour, cosine``.
        """
        _positive(top=top)
        where = self.embed(in_pieces(sequences_of(data, like=self.run.data)))
        if to is None and len(where) < 2:
            raise ConfigError(
                "there is only one short sequence, and nothing to compare it with: name another file (--like)"
            )
        queries = where if to is None else self.embed(to)
        asked_Q = np.arange(len(queries))
        if id is not None:
            asked_Q = np.flatnonzero((queries["id"] == id).to_numpy())
            if not len(asked_Q):
                raise ConfigError(f"no sequence has the id {id!r}; the first ids are {', '.join(queries['id'][:5])}")
        middle_D = _vectors(where).mean(0)
        own_N = asked_Q if to is None else None
        top = min(top, len(where) - (to is None))
        order_QK, cosine_QK = nearest(_unit(queries, middle_D)[asked_Q], _unit(where, middle_D), own_N, top)
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

    def step(self, symbol: str | None = None, state: State | None = None, *, top: int = 5) -> Following:
        """Feed one symbol and see what comes next; the state goes on from there.

        Args:
            symbol: What happened; None = nothing yet, the sequence begins.
            state: As the last call returned it; None = a new sequence.
            top: How many of the likeliest symbols.
        """
        _positive(top=top)
        stepper = self.engine.stepper
        if state is None:
            state = stepper.start(Batch(index_B=torch.zeros(1, dtype=torch.long)))
            opening = [SPECIALS.bos]
        else:
            state, opening = state.fork(), []  # the caller may go on from the old one in another way
        ids = opening + ([] if symbol is None else self._ids_of(symbol))
        if not ids:
            raise ConfigError("nothing to feed: give a symbol, or begin anew without a state")
        with torch.no_grad():
            logits, after = stepper.step(torch.tensor([ids], device=self._device), state)
        p_V = logits[0, -1].double().exp().cpu().numpy()
        p_V[SPECIALS.unk] = 0
        order = np.argsort(-p_V, kind="stable")[:top].tolist()
        return Following(tuple(map(self._symbol, order)), tuple(p_V[order].tolist()), after)

    def save(self, folder: str | Path) -> Path:
        """Write the model; every file whole or not at all, ``config.json`` last: without it there is no model.

        A model that was there ends first, so that a saving cut short leaves no mixture of both.
        """
        folder = Path(folder)
        (folder / CONFIG).unlink(missing_ok=True)
        checkpoint.save(folder / WEIGHTS, self.engine.tensors(), {"task": self.task})
        checkpoint.write_json(folder / VOCABULARY, self.tokenizer.to_json())
        checkpoint.write_json(folder / RUN, self.run.to_json())
        checkpoint.write_json(folder / METRICS, self.metrics)
        for name, text in self.files.items():
            checkpoint.write_text(folder / name, text)
        checkpoint.write_json(folder / CONFIG, self.engine.blueprint.to_json())
        return folder

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> "Fitted":
        """Read what ``save`` wrote. CheckpointError where it is cut short, edited or from a newer version."""
        folder = Path(folder)
        if not (folder / CONFIG).is_file():
            begun = (folder / "checkpoint.safetensors").is_file()
            mend = "its training did not end: fit again with --resume" if begun else "train one: seqloom fit FILE"
            raise CheckpointError(f"{folder} holds no finished model; {mend}")
        documents = {name: checkpoint.read_json(folder / name) for name in (CONFIG, VOCABULARY, RUN, METRICS)}
        for name, document in documents.items():
            if not isinstance(document, dict):
                raise CheckpointError(f"{folder / name} holds no JSON object: it was edited; fit the model again")
        try:
            blueprint = Blueprint.from_json(documents[CONFIG])
            engine = blueprint.engine(device_named(device))
            tokenizer = Tokenizer.from_json(documents[VOCABULARY])
            run = Run.from_json(documents[RUN])
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise CheckpointError(f"{folder} cannot be read: {error}") from error
        engine.load(checkpoint.load(folder / WEIGHTS)[0])
        return cls(engine, tokenizer, run, metrics=documents[METRICS])

    def reading(self, text: str) -> Sequences:
        """One sequence as it is typed: the symbols of an event log are separated by spaces."""
        return Sequences.of([text] if self.tokenizer.joiner == "" else [text.split()])

    @property
    def _device(self) -> torch.device:
        model = getattr(self.engine, "model", None)
        return getattr(model, "device", torch.device("cpu"))

    def _encoded(self, data: Any) -> tuple[Sequences, Ragged]:
        asked = sequences_of(data, like=self.run.data)
        if len(asked) and asked.kind not in self.tokenizer.reads:
            raise DataError(
                f"holds {asked.kind}, and the model was trained on {' or '.join(self.tokenizer.reads)}",
                file=asked.source,
                mend="Hand over data like those that it was trained on.",
            )
        return asked, self.tokenizer.encode(asked)

    def _ids_of(self, symbol: str) -> list[int]:
        kind = [symbol] if self.tokenizer.joiner == "" else [[symbol]]
        return self.tokenizer.encode(Sequences.of(kind))[0].tolist()

    def _symbol(self, id: int) -> str:
        if id < SPECIALS.count:
            return NAMES[id]
        return self.tokenizer.render([id])

    def _score_classes(self, asked: Sequences, ragged: Ragged) -> pl.DataFrame:
        if asked.labels is None:
            raise SeqloomError("these data have no labels to score against; use predict")
        log_NC = self.engine.classify(ragged)
        number = {name: at for at, name in enumerate(self.classes)}
        at_N = [number.get(label, -1) for label in asked.labels]
        bits = [-log_NC[row, at] * BITS if at >= 0 else np.inf for row, at in enumerate(at_N)]
        chosen = [self.classes[at] for at in (log_NC.argmax(1) if len(log_NC) else [])]
        return pl.DataFrame(
            {"id": asked.ids, "label": asked.labels, "class": chosen, "bits": np.array(bits, np.float64)},
            schema_overrides={"id": pl.String, "label": pl.String},
        )


def bits_of(log_p: Ragged) -> Ragged:
    """Natural log-probabilities as bits."""
    return Ragged(np.asarray(log_p.values) * -BITS, log_p.offsets)


def load(folder: str | Path, *, device: str = "cpu") -> Fitted:
    """Read a model that ``fit`` saved."""
    return Fitted.load(folder, device=device)


def _positive(**counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{name} must be at least 1, not {count}")


def _unit(frame: pl.DataFrame, middle_D: np.ndarray) -> np.ndarray:
    """Vectors of length 1 around the middle of the data: uncentred, everything is like everything else."""
    vectors = _vectors(frame) - middle_D
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _vectors(frame: pl.DataFrame) -> np.ndarray:
    return frame["vector"].to_numpy().astype(np.float64).reshape(len(frame), -1)
