"""One class for everything that was fitted, neural or classical: predict, score, generate, embed, similar, step, save.

    model.safetensors   what was learnt            config.json   how the model is built
    vocabulary.json     the tokenizer              run.json      how it was trained, on what
    card.md             for people                 metrics.json  the figures of the test part

Answers are polars frames that keep the ids and the order of what was asked. Nothing in a folder is ever unpickled.
"""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from seqloom.app import _answers, _by_prefix, _folder, _forecasts, _regress
from seqloom.app._engines import BITS, Blueprint, Engine
from seqloom.app._folder import CONFIG, METRICS, RUN, VOCABULARY, WEIGHTS
from seqloom.app._generate import generate
from seqloom.app._nearest import similar
from seqloom.app._reach import lacking
from seqloom.app._regress import Regressor
from seqloom.app._values import ValueEngine
from seqloom.app.data import in_pieces, sequences_of
from seqloom.app.device import device_named
from seqloom.app.drift import Profile
from seqloom.app.judge import judged
from seqloom.core.component import FORMAT
from seqloom.core.errors import CheckpointError, ConfigError, DataError, SeqloomError
from seqloom.core.files import MEND
from seqloom.core.specials import NAMES, SPECIALS
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.tokenizers._base import Tokenizer
from seqloom.training import checkpoint
from seqloom.training.prepare import Learnt, encoded
from seqloom.training.run import Run

PROFILE = "profile"
"""What training saw, among the figures."""
NO_SYMBOLS = {"format": FORMAT, "config": None}
"""The vocabulary's file of a model of real values."""


class Fitted:
    """A trained model with everything that it needs to be used."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer | None,
        run: Run,
        *,
        metrics: dict[str, Any] | None = None,
        files: dict[str, str] | None = None,
    ) -> None:
        """Keep the parts.

        Args:
            engine: The model.
            tokenizer: What makes symbols; None for real values.
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
        """Next, classify or regress."""
        return self.engine.blueprint.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that the model tells apart."""
        return self.engine.blueprint.classes

    def predict(self, data: Any, *, top: int = 5, horizon: int = 0) -> pl.DataFrame:
        """What comes next, which class, or which number.

        Args:
            data: A path, ``sample:NAME``, a DataFrame, lists of symbols, strings, or Sequences.
            top: Task next: how many of the likeliest symbols.
            horizon: Real values: how many steps ahead; 0 = as far as the model was fitted for, else the next one.

        Returns:
            Task next: ``id, rank, symbol, probability``, ``top`` rows a sequence; ``<eos>`` = the sequence ends here.
            Real values: ``id, channel, mean, low, high``; the value lies between low and high in 80 of 100 cases.
            With a horizon ``id, step, channel, mean, low, high``, step 1 being the next one.
            Task classify: ``id, class, probability`` and one column ``p(NAME)`` a class.
            Task regress: ``id, prediction, lower, upper, unit``; it should lie between both in 80 of 100 cases.
        """
        _positive(top=top)
        asked, examples = self._encoded(data)
        if horizon < 0 or (horizon and (self.task != "next" or not isinstance(self.engine, ValueEngine))):
            raise ConfigError("a horizon of at least 1 step belongs to a model of real values")
        if self.task == "classify":
            return _answers.told_apart(self.engine, asked, examples)
        if isinstance(self.engine, Regressor):
            return _regress.predicted(self.engine, asked, examples)
        if isinstance(self.engine, ValueEngine):
            return _forecasts.forecast(self.engine, asked, examples, horizon or self.engine.blueprint.horizon)
        return _answers.following(self.engine, asked, examples, top, self._symbol)

    def score(self, data: Any) -> pl.DataFrame:
        """How well each sequence fits: the fewer bits, the more it is like the training data.

        Returns:
            Task next: ``id, symbols, bits, bits_per_symbol`` (the end symbol counts), or ``id, values, bits,
            bits_per_value``; ``percentile``: how many of 100 held-out sequences of like length fit better, so that
            50 is ordinary and 99 is odd. Task classify, for data with labels: ``id, label, class, bits`` (of the true
            class; a class that training never saw costs infinity).
        """
        return self._scored(data)[0]

    def scored(self, data: Any) -> tuple[pl.DataFrame, list[str]]:
        """What ``score`` says, and the warnings, which then know the fit as well."""
        frame, bits = self._scored(data)
        return frame, self.warnings(data, bits)

    def _scored(self, data: Any) -> tuple[pl.DataFrame, Ragged | None]:
        asked, examples = self._encoded(data)
        if self.task == "classify":
            return _answers.class_bits(self.engine, asked, examples), None
        bits = bits_of(self.engine.score(examples)[0])
        total_N, count_N = _answers.sums(bits)
        counted, each = ("values", "bits_per_value") if self.predicts_values else ("symbols", "bits_per_symbol")
        mean_N = total_N / np.maximum(count_N, 1)
        columns = {"id": asked.ids, counted: count_N, "bits": total_N, each: mean_N}
        if self.profile is not None:
            columns["percentile"] = self.profile.percentile(mean_N, count_N)
        return pl.DataFrame(columns, schema_overrides={"id": pl.String}), bits

    def surprise(self, data: Any) -> pl.DataFrame:
        """Bits of every single symbol: ``id, position, symbol, bits``; where in a sequence it gets odd.

        Real values: ``id, position, channel, bits``.
        """
        asked, examples = self._encoded(data)
        bits = bits_of(self.engine.score(examples)[0])
        if isinstance(self.engine, ValueEngine):
            return _forecasts.surprise(self.engine, bits, asked, examples)
        return _answers.surprise(bits, asked, examples, self._symbol)

    def by_prefix_length(self, data: Any) -> pl.DataFrame:
        """How good the model is by how much it had read: ``from, to, sequences, symbols, bits, low, high, accuracy``.

        Real values: by steps read before the next value. Task classify, for data with labels: by the length of the
        sequence. Task regress: ``mae`` in place of bits. See ``Comparison.by_prefix_length``.
        """
        asked, examples = self._encoded(data)
        if self.task == "classify" and asked.labels is None:
            raise SeqloomError("these data have no labels to score against; use predict")
        got = judged(self.engine, asked, examples)
        return _by_prefix.frame({"": got.by_prefix}, got.task).drop("model")

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
            ``id, sequence, ended``: the prompt with what was written, and whether the model ended it itself. Real
            values: ``id, position`` and a column a channel, ``limit`` new steps a sequence.
        """
        if self.task != "next":
            kind = "classifier" if self.task == "classify" else "model that tells a number"
            raise ConfigError(f"a {kind} writes no sequences: fit with --task next")
        _positive(n=n)
        asked, examples = (None, self._nothing) if prompts is None else self._encoded(prompts)
        ids = asked.ids if asked is not None else ["generated"]
        numbered = [id if n == 1 else f"{id}/{number}" for id in ids for number in range(1, n + 1)]
        examples = examples.select(np.repeat(np.arange(len(examples)), n))
        if isinstance(self.engine, ValueEngine):
            return _forecasts.written(self.engine, numbered, examples, limit, temperature=temperature, seed=seed)
        tokens = examples.whole().tokens
        if tokens is None:
            raise ConfigError("this model writes symbols")
        written, ended = generate(
            self.engine.stepper, tokens, limit=limit, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
        )
        text = [self.symbols.render(line) for line in written]
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
        asked, examples = self._encoded(data)
        vectors = self.engine.vectors(examples).astype(np.float32)
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
        return similar(where, queries, asked_Q, alone=to is None, top=top)

    def step(self, symbol: Any = None, state: Any = None, *, top: int = 5) -> "_answers.Following | _forecasts.Ahead":
        """Feed one symbol, or one value, and see what comes next; the state goes on from there.

        Args:
            symbol: What happened (a number, or one a channel, for real values); None = nothing yet.
            state: As the last call returned it; None = a new sequence.
            top: How many of the likeliest symbols.
        """
        _positive(top=top)
        if isinstance(self.engine, ValueEngine):
            return _forecasts.ahead(self.engine, symbol, state)
        return _answers.ahead(self.engine, None if symbol is None else self._ids_of(symbol), state, top, self._symbol)

    def save(self, folder: str | Path) -> Path:
        """Write the model; every file whole or not at all, ``config.json`` last: without it there is no model.

        A model that was there ends first, so that a saving cut short leaves no mixture of both.
        """
        folder = Path(folder)
        documents = {
            VOCABULARY: NO_SYMBOLS if self.tokenizer is None else self.tokenizer.to_json(),
            RUN: self.run.to_json(),
            METRICS: self.metrics,
            CONFIG: self.engine.blueprint.to_json(),
        }
        _folder.write(folder, self.engine.tensors(), documents, self.files, self.task)
        return folder

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "cpu") -> "Fitted":
        """Read what ``save`` wrote. CheckpointError where it is cut short, edited or from a newer version."""
        folder, where = Path(folder), device_named(device)
        documents = _folder.read(folder)
        try:
            blueprint = Blueprint.from_json(documents[CONFIG])
            _folder.check_sizes(blueprint, folder)
            engine = blueprint.engine(where)
            tokenizer = None if documents[VOCABULARY] == NO_SYMBOLS else Tokenizer.from_json(documents[VOCABULARY])
            run = Run.from_json(documents[RUN])
        except CheckpointError:
            raise
        except (ArithmeticError, AttributeError, ConfigError, ImportError, LookupError) as error:
            raise CheckpointError(f"{folder} cannot be read: {error}. {MEND}") from error
        except (MemoryError, RecursionError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder} cannot be read: {error}. {MEND}") from error
        engine.load(checkpoint.load(folder / WEIGHTS)[0])
        return cls(engine, tokenizer, run, metrics=documents[METRICS])

    def reading(self, text: str) -> Sequences:
        """One sequence as it is typed: the symbols of an event log are separated by spaces."""
        if self.tokenizer is None:
            return Sequences.of([_numbers(text)])
        return Sequences.of([text] if self.tokenizer.joiner == "" else [text.split()])

    @property
    def symbols(self) -> Tokenizer:
        """The tokenizer. ConfigError for a model of real values."""
        if self.tokenizer is None:
            raise ConfigError("this model reads real values: it has no symbols")
        return self.tokenizer

    @property
    def predicts_values(self) -> bool:
        """True where real values are predicted."""
        return self.engine.blueprint.sizes.values > 0

    @property
    def profile(self) -> Profile | None:
        """What training saw; models that an earlier version saved have none."""
        found = self.metrics.get(PROFILE)
        return None if found is None else Profile.from_json(found)

    def read(self, data: Any) -> Sequences:
        """Read data as those were read that the model was trained on."""
        return sequences_of(data, like=self.run.data)

    def warnings(self, data: Any, bits: Ragged | None = None) -> list[str]:
        """What sets data apart from those of the training, in sentences; ``bits`` of every symbol tell of the fit."""
        asked, examples = self._encoded(data)
        said = lacking(self.engine.blueprint.features, getattr(self.run.data, "columns", None), asked)
        own = examples.values if examples.tokens is None else examples.tokens
        found = self.profile
        return said + (found.warnings(own, bits, columns=examples.values, name=self._symbol) if found else [])

    @property
    def learnt(self) -> Learnt:
        """What another training can go on with."""
        b = self.engine.blueprint
        return Learnt(self.tokenizer, b.features, b.classes, b.target)

    @property
    def _device(self) -> torch.device:
        model = getattr(self.engine, "model", None)
        return getattr(model, "device", torch.device("cpu"))

    def _encoded(self, data: Any) -> tuple[Sequences, Examples]:
        asked = self.read(data)
        reads = ("values",) if self.tokenizer is None else self.tokenizer.reads
        if len(asked) and asked.kind not in reads:
            raise DataError(
                f"holds {asked.kind}, and the model was trained on {' or '.join(reads)}",
                file=asked.source,
                mend="Hand over data like those that it was trained on.",
            )
        return asked, encoded(asked, self.tokenizer, self.engine.blueprint.features)

    @property
    def _nothing(self) -> Examples:
        """One sequence in which nothing has happened yet."""
        if self.tokenizer is not None:
            return Examples(Ragged.of([[]]))
        return Examples(
            None, values=Ragged(np.zeros((0, self.engine.blueprint.sizes.channels), np.float32), np.zeros(2, np.int64))
        )

    def _ids_of(self, symbol: str) -> list[int]:
        kind = [symbol] if self.symbols.joiner == "" else [[symbol]]
        return self.symbols.encode(Sequences.of(kind))[0].tolist()

    def _symbol(self, id: int) -> str:
        return NAMES[id] if id < SPECIALS.count else self.symbols.render([id])


def _numbers(text: str) -> np.ndarray:
    """Values as they are typed: steps separated by spaces, the channels of a step by commas."""
    try:
        steps = [[float(one) for one in step.split(",")] for step in text.split()]
        return np.array([step[0] if len(step) == 1 else step for step in steps], np.float64)
    except ValueError as error:
        raise ConfigError(f"values are numbers with spaces between them, channels with commas: {text!r}") from error


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
