"""The one interface of every classical model of the next symbol: a machine that reads tokens into a small memory.

    memory_0 = start        memory_t = read(memory_{t-1}, x_t)        p(. | x_1 .. x_t) = f(memory_t)

A part writes these three and how it learns; scoring, stepping, going back and distributions are written once here.
Probabilities are proper over the ordinary symbols, <eos> and <unk>; the other specials have probability 0.
Shapes: B rows, q tokens of a call, T time, M numbers of memory, V vocabulary, L tokens of a stream, N sequences.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from seqloom.core.batch import Batch
from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout, roll
from seqloom.core.outputs import Outputs
from seqloom.core.protocols import Progress, Silent
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.core.state import State
from seqloom.data.ragged import Ragged
from seqloom.models.classical._stream import Stream

CAPACITY = 64  # tokens that a state's log has room for at first
CELLS = 1 << 22  # float64 values of a dense block of distributions: 32 MB
REFUSED = ("starts_BT", "parents_BT", "parts_BT", "exchange")


@dataclass(frozen=True, kw_only=True)
class ClassicalState(State):
    """All tokens that were read, and the memory that they led to: going back is free, and exact."""

    in_place: ClassVar[bool] = True
    log_BL: Tensor
    """Tokens read so far, with room for more behind them; a step writes into that room."""
    memory_BM: Tensor
    """The machine's memory after ``read_B`` tokens."""
    read_B: Tensor
    """Tokens that the memory stands for; more than the length after a rollback, which the next step mends."""

    def rollback(self, n_B: Tensor) -> Self:
        """Forget the last tokens. The memory is made again from the log at the next step."""
        if bool((n_B < 0).any()) or bool((n_B > self.length_B).any()):
            raise ConfigError(f"rows of lengths {self.length_B.tolist()} cannot go back by {n_B.tolist()}")
        # every row that went back is stale: a later step may overwrite the log behind the new end
        return replace(self, length_B=self.length_B - n_B, read_B=torch.where(n_B > 0, -1, self.read_B))


class ClassicalModel(Component):
    """Base of every classical next-symbol model; each is a Stepper."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a classical model."""

    config: Any
    tasks: ClassVar[tuple[str, ...]] = ("next",)

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """Keep the sizes and the options. ConfigError for a vocabulary without symbols."""
        if sizes.vocabulary <= SPECIALS.count:
            raise ConfigError(f"a classical model needs symbols: a vocabulary of {sizes.vocabulary} has none")
        self.sizes = sizes
        self.config = config if config is not None else type(self).Config()
        self.fitted = False

    # What a user calls

    def fit(
        self,
        ragged: Ragged,
        valid: Ragged | None = None,
        *,
        opens: Any = None,
        closes: Any = None,
        progress: Progress | None = None,
    ) -> None:
        """Learn from sequences of ids without bos and eos.

        Args:
            ragged: Training sequences.
            valid: Held-out sequences, by which a model may choose among its options; never counted.
            opens: False where a training sequence continues an earlier one (see ``Example.opens``); None = all open.
            closes: False where it goes on after its last symbol.
            progress: Where to tell how far it is.
        """
        stream = Stream(ragged, self.sizes.vocabulary, opens, closes)
        stream.check_learnable()
        held = None if valid is None or not len(valid) else Stream(valid, self.sizes.vocabulary)
        self._learn(stream, held, progress or Silent())
        self.fitted = True

    def token_log_probs(self, ragged: Ragged, *, opens: Any = None, closes: Any = None) -> Ragged:
        """Natural log-probability of every token and end symbol: ``length + 1`` float64 values a sequence.

        A sequence that does not open loses its first token, which is input alone; one that does not close, the end.
        """
        self._check_fitted()
        stream = Stream(ragged, self.sizes.vocabulary, opens, closes)
        return stream.ragged(self._score(stream))

    def distribution(self, prefix: Any = (), *, opens: bool = True) -> np.ndarray:
        """Probability of every id after <bos> and a prefix, float64 (V,)."""
        self._check_fitted()
        tokens_1T = Stream(Ragged.of([prefix]), self.sizes.vocabulary, [opens], [False]).tokens[None]
        memory_1TM = self._read(self._start(1), tokens_1T, np.array([tokens_1T.shape[1]]))
        last_1M = memory_1TM[:, -1] if tokens_1T.size else self._start(1)
        return np.exp(self._log_probs(last_1M))[0]

    def start(self, batch: Batch, *, capacity: int | None = None) -> ClassicalState:
        """An empty state for the rows of a batch; no token is consumed."""
        self._check_fitted()
        zeros_B = torch.zeros(len(batch), dtype=torch.long)
        return ClassicalState(
            length_B=zeros_B,
            log_BL=torch.zeros(len(batch), CAPACITY if capacity is None else capacity, dtype=torch.int32),
            memory_BM=torch.from_numpy(self._start(len(batch))),
            read_B=zeros_B,
        )

    def step(self, tokens_Bq: Tensor, state: State, *, layout: Layout | None = None) -> tuple[Tensor, State]:
        """Log-probabilities (B, q, V), float64, of what follows each token."""
        outputs, after = self.observe(tokens_Bq, state, layout=layout)
        return outputs.logits, after

    def observe(self, tokens_Bq: Tensor, state: State, *, layout: Layout | None = None) -> tuple[Outputs, State]:
        """As ``step``; the distributions are made when somebody looks."""
        self._check_fitted()
        layout = layout or PLAIN
        if not isinstance(state, ClassicalState):
            raise ConfigError(f"this is not a state of {type(self).__name__}: start() makes one")
        refused = [name for name in layout.used() if name in REFUSED]
        if refused:
            raise ConfigError(f"{type(self).__name__} cannot honour the layout's {', '.join(refused)}")
        columns = tokens_Bq.shape[1]
        lengths_B = torch.full_like(state.length_B, columns) if layout.lengths_B is None else layout.lengths_B.cpu()
        shift_B = (columns - lengths_B) * (layout.side == "left")
        own_Bq = roll(tokens_Bq.detach().cpu(), shift_B)
        if own_Bq.numel() and not 0 <= int(own_Bq.min()) <= int(own_Bq.max()) < self.sizes.vocabulary:
            raise ConfigError(f"a token lies outside the vocabulary of {self.sizes.vocabulary}")
        memory_BM = self._fresh(state)
        memory_BqM = self._read(memory_BM, own_Bq.numpy().astype(np.int32), lengths_B.numpy())
        if columns:
            memory_BM = memory_BqM[:, -1]
        after = _append(state, own_Bq.int(), lengths_B, torch.from_numpy(np.ascontiguousarray(memory_BM)))
        entries: dict[str, Any] = {"logits": partial(self._logits, memory_BqM, shift_B, tokens_Bq.device)}
        return Outputs(entries), after

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that was learnt, as named arrays."""

    @abstractmethod
    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take back what ``arrays`` gave. CheckpointError where it does not fit together."""

    @property
    @abstractmethod
    def held_parameters(self) -> int:
        """Learnt numbers that the model keeps."""

    # What a part writes

    reach: int | None = None
    """The memory is a function of this many last tokens; None = of all of them."""

    @abstractmethod
    def _learn(self, stream: Stream, valid: Stream | None, progress: Progress) -> None:
        """Learn from a stream; ``valid`` is for choosing among options alone."""

    @abstractmethod
    def _start(self, rows: int) -> np.ndarray:
        """Memory before the first token, float64 (B, M); M may be 0."""

    @abstractmethod
    def _read(self, memory_BM: np.ndarray, tokens_BT: np.ndarray, lengths_B: np.ndarray) -> np.ndarray:
        """Memory after every token (B, T, M); behind a row's length its last memory stays."""

    @abstractmethod
    def _log_probs(self, memory_BM: np.ndarray) -> np.ndarray:
        """Natural log-probabilities (B, V) of the next token."""

    def _score(self, stream: Stream) -> np.ndarray:
        """Log-probability of every token of a stream (L,); parts that can do it without distributions override it."""
        out_L = np.zeros(len(stream.tokens))
        for begin, end in zip(stream.offsets[:-1], stream.offsets[1:], strict=True):
            memory_1M = self._start(1)
            block = max(1, CELLS // self.sizes.vocabulary)
            for at in range(begin, end, block):
                tokens_T = stream.tokens[at : min(at + block, end)]
                after_TM = self._read(memory_1M, tokens_T[None], np.array([len(tokens_T)]))[0]
                before_TM = np.concatenate([memory_1M, after_TM[:-1]])
                out_L[at : at + len(tokens_T)] = self._log_probs(before_TM)[np.arange(len(tokens_T)), tokens_T]
                memory_1M = after_TM[-1:]
        return out_L

    # Helpers

    def _check_fitted(self) -> None:
        if not self.fitted:
            raise ConfigError(f"this {type(self).__name__} has learnt nothing yet: call fit, or load what was saved")

    def _fresh(self, state: ClassicalState) -> np.ndarray:
        """The memory of every row, made again from the log where the row went back."""
        memory_BM, length_B = state.memory_BM.numpy().copy(), state.length_B.numpy()
        stale_R = np.flatnonzero(state.read_B.numpy() != length_B)
        if not len(stale_R):
            return memory_BM
        reach = int(length_B[stale_R].max()) if self.reach is None else self.reach
        begin_R = np.maximum(length_B[stale_R] - reach, 0)
        span_R = length_B[stale_R] - begin_R
        memory_BM[stale_R] = self._start(len(stale_R))
        if span_R.max() > 0:
            at_RT = np.minimum(begin_R[:, None] + np.arange(span_R.max()), state.log_BL.shape[1] - 1)
            tokens_RT = state.log_BL.numpy()[stale_R[:, None], at_RT]
            memory_BM[stale_R] = self._read(memory_BM[stale_R], tokens_RT, span_R)[:, -1]
        return memory_BM

    def _logits(self, memory_BqM: np.ndarray, shift_B: Tensor, device: torch.device) -> Tensor:
        rows, columns, width = memory_BqM.shape
        logits_RV = self._log_probs(memory_BqM.reshape(rows * columns, width))
        logits_BqV = torch.from_numpy(logits_RV).view(rows, columns, self.sizes.vocabulary)
        return (roll(logits_BqV, -shift_B) if bool((shift_B > 0).any()) else logits_BqV).to(device)


def _append(state: ClassicalState, tokens_Bq: Tensor, lengths_B: Tensor, memory_BM: Tensor) -> ClassicalState:
    """Write the tokens behind each row's end, in a longer log if need be."""
    length_B = state.length_B + lengths_B
    room, need = state.log_BL.shape[1], int(length_B.max()) if len(length_B) else 0
    log_BL = state.log_BL
    if need > room:
        log_BL = torch.cat([log_BL, log_BL.new_zeros(len(log_BL), max(need, 2 * room) - room)], 1)
    column_Bq = torch.arange(tokens_Bq.shape[1]).expand_as(tokens_Bq)
    row_R, at_R = (column_Bq < lengths_B[:, None]).nonzero(as_tuple=True)
    log_BL[row_R, state.length_B[row_R] + at_R] = tokens_Bq[row_R, at_R]
    return replace(state, length_B=length_B, log_BL=log_BL, memory_BM=memory_BM, read_B=length_B, trail=None)
