"""What a decoder holds of every sequence that it is writing, and what it hands back.

    invariant   the stepper's state has consumed the prompt and every chosen token but the last, which is fed next

Nothing with one entry a hypothesis lives anywhere else, so one ``select`` reorders, repeats or drops hypotheses and
one ``rollback`` takes tokens back, the model's state and every processor's memory included.

Shapes: B hypotheses, L columns, P prompts, T prompt columns, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from seqloom.core.batch import Batch
from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout, roll
from seqloom.core.specials import SPECIALS, Specials
from seqloom.core.state import State

START_WIDTH = 32


class Reason(IntEnum):
    """Why a hypothesis is finished."""

    LIVE = 0
    END = 1
    """It chose an end token, or its prompt had one already."""
    LIMIT = 2
    """It reached the most tokens that were asked for."""
    STOP = 3
    """The caller's stop rule held."""


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What the decoding cost, counted rather than timed."""

    calls: int = 0
    """Calls of the model, prefill included."""
    passes: int = 0
    """Calls that had to wait for the tokens of the one before."""
    tokens: int = 0
    """Positions that the model processed, padding left out."""
    state_bytes: int = 0
    """The most bytes that the model's state had."""

    def __add__(self, other: "Counters") -> "Counters":
        """Cost of two models together."""
        return Counters(
            calls=self.calls + other.calls,
            passes=self.passes + other.passes,
            tokens=self.tokens + other.tokens,
            state_bytes=self.state_bytes + other.state_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The prompts of one decoding, padded to the right; hypotheses point into it and never copy it."""

    tokens_PT: Tensor
    lengths_P: Tensor
    keys_P: Tensor
    """What the random numbers of a prompt's row are keyed by: its number in the data set, or in the batch."""
    layout: Layout = PLAIN
    """What else the batch said of its columns: positions, parts."""

    @classmethod
    def of(cls, batch: Batch) -> "Prompt":
        """Check and normalise the rows of a batch. Raises ConfigError where there is nothing to continue."""
        tokens, layout = batch.tokens_BT, batch.layout
        if tokens is None or batch.values_BTC is not None:
            raise ConfigError("a decoder continues tokens: this batch holds values or nothing")
        if layout.starts_BT is not None or layout.parents_BT is not None or layout.exchange is not None:
            raise ConfigError(f"a prompt is one segment a row: the layout uses {', '.join(layout.used())}")
        rows, length = tokens.shape
        full = torch.full((rows,), length, device=tokens.device)
        lengths = full if layout.lengths_B is None else layout.lengths_B
        if rows and int(lengths.min() if length else 0) == 0:
            row = int(lengths.argmin()) if length else 0
            raise ConfigError(f"prompt {row} is empty: begin it with the bos token, as prompts() does")
        kept: dict[str, Any] = {n: v for n in ("positions_BT", "parts_BT") if (v := getattr(layout, n)) is not None}
        if layout.side == "left":
            tokens = roll(tokens, length - lengths)
            kept = {name: roll(value, length - lengths) for name, value in kept.items()}
        keys = torch.arange(rows, device=tokens.device) if batch.index_B is None else batch.index_B
        return cls(tokens_PT=tokens, lengths_P=lengths, keys_P=keys, layout=Layout(**kept))

    @property
    def last_P(self) -> Tensor:
        """The last token of each prompt."""
        return self.tokens_PT.gather(1, self.lengths_P[:, None] - 1)[:, 0]

    def without_last(self, rows: Tensor) -> tuple[Tensor, Layout | None]:
        """Tokens and layout of all but each prompt's last token, as a prefill needs them."""
        lengths_B = self.lengths_P[rows] - 1
        length = int(lengths_B.max())
        fields = {n: getattr(self.layout, n)[rows, :length] for n in self.layout.used()}
        if bool((lengths_B != length).any()):
            fields["lengths_B"] = lengths_B
        return self.tokens_PT[rows, :length], Layout(**fields) if fields else None

    def of_last(self, rows: Tensor) -> Layout | None:
        """Layout of the call that feeds each prompt's last token."""
        fields = {n: getattr(self.layout, n) for n in self.layout.used()}
        at = self.lengths_P[rows, None] - 1
        return Layout(**{n: value[rows].gather(1, at) for n, value in fields.items()}) if fields else None


@dataclass(frozen=True, kw_only=True)
class Hypotheses(State):
    """Sequences being written, or written: ``length_B`` counts the tokens chosen, an end token once, no prompt."""

    in_place: ClassVar[bool] = True

    prompt: Prompt
    row_B: Tensor
    """The prompt that each hypothesis continues."""
    tokens_BL: Tensor
    """Every token chosen, actions and the end token included; pad behind ``length_B``."""
    raw_BL: Tensor
    """Log-probability of each token under the model, before any processor."""
    search_BL: Tensor
    """What each token added to the score that was ranked."""
    final_B: Tensor
    """The score that orders the results."""
    reason_B: Tensor
    """Why it is finished: a ``Reason``."""
    state: State | None = None
    """The stepper's state; None in results."""
    extras: dict[str, Tensor | State] = field(default_factory=dict)
    """Whatever else travels with the rows. A tensor does not change with tokens; what does is a State."""
    used: int = 0
    """Columns that may hold tokens."""
    pad: int = SPECIALS.pad
    counters: Counters = Counters()

    @classmethod
    def begin(cls, prompt: Prompt, *, pad: int = SPECIALS.pad, width: int = START_WIDTH) -> "Hypotheses":
        """One hypothesis a prompt, nothing chosen yet. ``width``: columns at hand before the buffers grow."""
        rows, device = len(prompt.tokens_PT), prompt.tokens_PT.device
        zeros = torch.zeros(rows, width, device=device)
        return cls(
            length_B=torch.zeros(rows, dtype=torch.long, device=device),
            prompt=prompt,
            row_B=torch.arange(rows, device=device),
            tokens_BL=torch.full((rows, width), pad, device=device),
            raw_BL=zeros,
            search_BL=zeros.clone(),
            final_B=torch.zeros(rows, device=device),
            reason_B=torch.zeros(rows, dtype=torch.long, device=device),
            pad=pad,
        )

    @property
    def raw_B(self) -> Tensor:
        """Log-probability of all tokens under the model."""
        return self.raw_BL.sum(1)

    @property
    def search_B(self) -> Tensor:
        """The score that was ranked."""
        return self.search_BL.sum(1)

    @property
    def key_B(self) -> Tensor:
        """What each row's random numbers are keyed by."""
        return self.prompt.keys_P[self.row_B]

    def append(self, tokens_B: Tensor, raw_B: Tensor, search_B: Tensor) -> Self:
        """One more token in every row, written into the buffers at hand: ``fork`` before two continuations."""
        grown = self if self.used < self.tokens_BL.shape[1] else self._widen(max(START_WIDTH, self.used))
        at_B1 = grown.length_B[:, None]
        grown.tokens_BL.scatter_(1, at_B1, tokens_B[:, None])
        grown.raw_BL.scatter_(1, at_B1, raw_B.to(grown.raw_BL.dtype)[:, None])
        grown.search_BL.scatter_(1, at_B1, search_B.to(grown.search_BL.dtype)[:, None])
        return replace(grown, length_B=grown.length_B + 1, used=grown.used + 1)

    def rollback(self, n_B: Tensor) -> Self:
        """Take back the last ``n_B`` tokens of each row, in the model's state and in every extra too."""
        length_B = self.length_B - n_B
        if bool((length_B < 0).any()):
            raise ConfigError(f"only {self.length_B.tolist()} tokens were chosen: {n_B.tolist()} cannot be taken back")
        gone_BL = torch.arange(self.tokens_BL.shape[1], device=n_B.device) >= length_B[:, None]
        extras = {k: v.rollback(n_B) if isinstance(v, State) else v for k, v in self.extras.items()}
        return replace(
            self,
            length_B=length_B,
            tokens_BL=self.tokens_BL.masked_fill(gone_BL, self.pad),
            raw_BL=self.raw_BL.masked_fill(gone_BL, 0),
            search_BL=self.search_BL.masked_fill(gone_BL, 0),
            reason_B=torch.where(n_B > 0, int(Reason.LIVE), self.reason_B),
            state=None if self.state is None else self.state.rollback(n_B),
            extras=extras,
            used=int(length_B.max()) if len(length_B) else 0,
        )

    def finished(self, reason_B: Tensor) -> Self:
        """As results: without the stepper's state, ``final_B`` the raw score."""
        return replace(self, state=None, extras={}, reason_B=reason_B, final_B=self.raw_B)

    def last_B(self) -> Tensor:
        """The token that is fed next: the last one chosen, or the prompt's last."""
        if self.used == 0:
            return self.prompt.last_P[self.row_B]
        chosen_B = self.tokens_BL.gather(1, (self.length_B - 1).clamp_min(0)[:, None])[:, 0]
        return torch.where(self.length_B > 0, chosen_B, self.prompt.last_P[self.row_B])

    def tokens_of(self, row: int) -> list[int]:
        """Every token that one hypothesis chose."""
        return self.tokens_BL[row, : int(self.length_B[row])].tolist()

    def read(self) -> tuple[Tensor, Tensor]:
        """Prompt and chosen tokens of every row (B, T + L), and which of the columns hold one."""
        tokens_BL = torch.cat([self.prompt.tokens_PT[self.row_B], self.tokens_BL[:, : self.used]], 1)
        length, device = self.prompt.tokens_PT.shape[1], tokens_BL.device
        held_BT = torch.arange(length, device=device) < self.prompt.lengths_P[self.row_B, None]
        held_BL = torch.arange(self.used, device=device) < self.length_B[:, None]
        return tokens_BL, torch.cat([held_BT, held_BL], 1)

    @classmethod
    def concat(cls, parts: "Sequence[Hypotheses]", counters: Counters) -> "Hypotheses":
        """Results of one decoding together: by prompt, within a prompt in the order given, no column too many."""
        width = max((int(part.length_B.max()) for part in parts if part.batch), default=0)
        parts = [part._narrow(width) for part in parts]
        names = ("length_B", "row_B", "tokens_BL", "raw_BL", "search_BL", "final_B", "reason_B")
        joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        whole = replace(parts[0], **joined, state=None, extras={}, used=width, counters=counters)
        return whole.select(torch.argsort(whole.row_B, stable=True))

    def _narrow(self, width: int) -> "Hypotheses":
        wide = self if self.tokens_BL.shape[1] >= width else self._widen(width - self.tokens_BL.shape[1])
        return replace(
            wide, **{name: getattr(wide, name)[:, :width] for name in ("tokens_BL", "raw_BL", "search_BL")}, used=width
        )

    def _widen(self, more: int) -> Self:
        values = {"tokens_BL": self.pad, "raw_BL": 0.0, "search_BL": 0.0}
        padded = {n: torch.nn.functional.pad(getattr(self, n), (0, more), value=value) for n, value in values.items()}
        return replace(self, **padded)


def prompts(rows: Sequence[Sequence[int]], specials: Specials = SPECIALS, keys: Sequence[int] | None = None) -> Batch:
    """Make a batch to continue: each row begins with bos, then its ids; an empty row is bos alone.

    Args:
        rows: ids without bos.
        specials: ids of bos and pad.
        keys: what each row's random numbers are keyed by; None = its number.
    """
    full = [torch.tensor([specials.bos, *row]) for row in rows]
    lengths_B = torch.tensor([len(row) for row in full], dtype=torch.long)
    if not full:
        tokens_BT = torch.zeros(0, 1, dtype=torch.long)
    else:
        tokens_BT = torch.nn.utils.rnn.pad_sequence(full, batch_first=True, padding_value=specials.pad)
    ragged = bool((lengths_B != tokens_BT.shape[1]).any())
    index_B = torch.arange(len(full)) if keys is None else torch.tensor(keys, dtype=torch.long)
    return Batch(tokens_BT=tokens_BT, layout=Layout(lengths_B=lengths_B) if ragged else PLAIN, index_B=index_B)
