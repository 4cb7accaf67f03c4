"""The interfaces of decoding: decoders, processors, grammars, stop rules and the events of a stream.

    events = decoder.stream(stepper, batch, limit=100)        Append, Revise, Finish; its return value is Hypotheses
    hypotheses = decoder.decode(stepper, batch, limit=100)    the same, drained

A decoder sees a Stepper and nothing else of a model. Searches share ``_engine.py``; a decoder that is no search
(drafts, canvases that are refined) writes ``stream`` itself.

Shapes: B hypotheses, V vocabulary.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from seqloom.core.batch import Batch
from seqloom.core.component import Component
from seqloom.core.errors import ConfigError
from seqloom.core.protocols import Stepper
from seqloom.core.specials import SPECIALS
from seqloom.core.state import State
from seqloom.decoding._hypotheses import Hypotheses, Reason

Kind = Literal["penalty", "mask", "guidance", "temperature", "truncation"]
KINDS: tuple[Kind, ...] = ("penalty", "mask", "guidance", "temperature", "truncation")


@dataclass(frozen=True)
class Append:
    """Tokens were added to what a reader sees of a row."""

    row: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Revise:
    """All but the first ``keep`` tokens of a row are taken back and replaced."""

    row: int
    keep: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Finish:
    """A row is complete."""

    row: int
    reason: Reason


Event = Append | Revise | Finish
Stream = Generator[Event, None, Hypotheses]
Stop = Callable[[Hypotheses], Tensor]
"""True (B,) where a hypothesis is to end here."""


class Processor(Component):
    """Changes logits before a token is chosen. The engine sorts processors by kind, otherwise in the order given."""

    kind: ClassVar[Kind]
    normalised: ClassVar[bool] = False
    """Whether it needs log-probabilities; otherwise a constant may be missing."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a processor."""

    config: Any

    def __init__(self, config: Config | None = None) -> None:
        """Keep the options."""
        self.config = config if config is not None else type(self).Config()

    def init(self, hypotheses: Hypotheses) -> State | None:
        """The memory of each row at the start. It is selected and rolled back with the row; most need none."""
        return None

    def __call__(self, logits_BV: Tensor, hypotheses: Hypotheses, memory: State | None) -> Tensor:
        """New logits, float32 or wider; the given tensor is left alone. -inf forbids a token."""
        raise TypeError(f"{type(self).__name__} does not process")

    def accept(self, tokens_B: Tensor, memory: State | None) -> State | None:
        """The memory after these tokens were chosen."""
        return memory


class Grammar(Component):
    """What a chosen token does: append itself, take others back, skip something, or end.

    ``Hypotheses.tokens_BL`` is the log of what was chosen; ``visible`` is what a reader sees of it.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a grammar."""

        end: tuple[int, ...] = (SPECIALS.eos,)
        """Tokens that end a sequence; they are chosen and scored once, and not visible."""

    config: Any

    def __init__(self, config: Config | None = None) -> None:
        """Keep the options."""
        self.config = config if config is not None else type(self).Config()

    def feed(self, hypotheses: Hypotheses, tokens_B: Tensor) -> tuple[Hypotheses, Tensor]:
        """Hypotheses whose state has gone back where these tokens undo something, and the tokens to feed next."""
        raise TypeError(f"{type(self).__name__} feeds nothing")

    def event(self, row: int, token: int, hypotheses: Hypotheses) -> Append | Revise | None:
        """What a reader of hypothesis ``row`` sees of the token just chosen. The event names the prompt's row."""
        raise TypeError(f"{type(self).__name__} shows nothing")

    def visible(self, hypotheses: Hypotheses, row: int) -> list[int]:
        """The tokens that a reader sees of one hypothesis."""
        raise TypeError(f"{type(self).__name__} shows nothing")


class PlainGrammar(Grammar):
    """Every token appends itself; the end token ends."""

    def feed(self, hypotheses: Hypotheses, tokens_B: Tensor) -> tuple[Hypotheses, Tensor]:
        return hypotheses, tokens_B

    def event(self, row: int, token: int, hypotheses: Hypotheses) -> Append | None:
        return None if token in self.config.end else Append(row, (token,))

    def visible(self, hypotheses: Hypotheses, row: int) -> list[int]:
        tokens = hypotheses.tokens_of(row)
        return tokens[:-1] if tokens and tokens[-1] in self.config.end else tokens


class Decoder(Component):
    """Writes sequences with any model that can step."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Component.Config):
        """Options of a decoder."""

        unknown: bool = False
        """Whether the unknown symbol may be written."""
        grammar: Grammar.Config = field(default_factory=PlainGrammar.Config)
        """What tokens do."""

    config: Any

    def __init__(self, config: Config | None = None) -> None:
        """Keep the options."""
        self.config = config if config is not None else type(self).Config()
        self.grammar: Grammar = self.config.grammar.build()

    def stream(
        self,
        stepper: Stepper,
        batch: Batch,
        *,
        limit: int,
        seed: int = 0,
        processors: Sequence[Processor] = (),
        stop: Stop | None = None,
    ) -> Stream:
        """Continue the rows of a batch and tell what happens as it happens.

        Args:
            stepper: the model.
            batch: prompts, each at least one token (bos), padded on either side; with ``context`` where the model
                reads one. ``index_B`` keys the random numbers of each row.
            limit: most tokens to choose for a row.
            seed: of all random numbers; what a row gets depends on (seed, its key, its step) alone.
            processors: beside the decoder's own.
            stop: rule that ends a row early.

        Raises:
            DeadEnd: every token of a row is forbidden.
        """
        raise TypeError(f"{type(self).__name__} does not stream")

    def decode(
        self,
        stepper: Stepper,
        batch: Batch,
        *,
        limit: int,
        seed: int = 0,
        processors: Sequence[Processor] = (),
        stop: Stop | None = None,
    ) -> Hypotheses:
        """Continue the rows of a batch: ``stream``, drained."""
        events = self.stream(stepper, batch, limit=limit, seed=seed, processors=processors, stop=stop)
        while True:
            try:
                next(events)
            except StopIteration as end:
                return end.value

    def visible(self, hypotheses: Hypotheses) -> list[list[int]]:
        """The tokens that a reader sees of every hypothesis."""
        return [self.grammar.visible(hypotheses, row) for row in range(hypotheses.batch)]


def stop_at(*sequences: Sequence[int]) -> Stop:
    """A stop rule: a row ends once its last tokens are one of these sequences (which stay in the row)."""
    if not all(len(sequence) for sequence in sequences):
        raise ConfigError("an empty stop sequence ends every row at once: give at least one token")

    def rule(hypotheses: Hypotheses) -> Tensor:
        ends_B = hypotheses.length_B < 0
        for sequence in sequences:
            at_BK = hypotheses.length_B[:, None] - len(sequence) + hypotheses.length_B.new_tensor(range(len(sequence)))
            same_BK = hypotheses.tokens_BL.gather(1, at_BK.clamp_min(0)) == at_BK.new_tensor(list(sequence))
            ends_B = ends_B | (same_BK & (at_BK >= 0)).all(1)
        return ends_B

    return rule
