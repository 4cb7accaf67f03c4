"""The loop that every search shares: feed, process, choose, append, retire.

    logits = step(last tokens)      scores = processors(logits)      tokens = pick(scores)

Prompts are consumed up to their last token, whose logits are never computed before they are needed: from there on
every call feeds one token a row, ragged prompts or not. Finished rows leave the batch and cost nothing more.

Shapes: B live hypotheses, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from seqloom.core.batch import Batch
from seqloom.core.errors import ConfigError, DeadEnd
from seqloom.core.layout import Layout
from seqloom.core.protocols import Stepper
from seqloom.core.specials import SPECIALS
from seqloom.core.state import State
from seqloom.core.steady import Steady
from seqloom.decoding._base import KINDS, Append, Decoder, Event, Finish, Grammar, Processor, Revise, Stop, Stream
from seqloom.decoding._hypotheses import Counters, Hypotheses, Prompt, Reason
from seqloom.decoding.processors.forbid import Forbid

Pick = Callable[[Tensor, Hypotheses], Tensor]
"""Tokens (B,) from processed scores (B, V), float32 or wider."""


class Counted:
    """A stepper that counts what it is asked for, and runs without gradients and with parameters that stay."""

    def __init__(self, stepper: Stepper) -> None:
        """Begin at zero."""
        self.stepper, self.counters, self.steady = stepper, Counters(), Steady()

    def start(self, batch: Batch, *, capacity: int | None = None) -> State:
        """The state before the first token."""
        with torch.inference_mode():
            return self.stepper.start(batch, capacity=capacity)

    def prefill(self, tokens_Bq: Tensor, state: State, layout: Layout | None) -> State:
        """Consume tokens whose logits nobody needs."""
        with torch.inference_mode(), self.steady:
            _, state = self.stepper.observe(tokens_Bq, state, layout=layout)
        given = None if layout is None else layout.lengths_B
        self._count(tokens_Bq.numel() if given is None else int(given.sum()), passes=0)
        return state

    def step(self, tokens_Bq: Tensor, state: State, layout: Layout | None = None) -> tuple[Tensor, State]:
        """Logits of what follows."""
        with torch.inference_mode(), self.steady:
            logits, state = self.stepper.step(tokens_Bq, state, layout=layout)
        self._count(tokens_Bq.numel(), passes=1)
        return logits, state

    def weigh(self, state: State | None) -> None:
        """Note the state's size; it only grows between the calls of this."""
        if state is not None:
            bytes_ = max(self.counters.state_bytes, state.nbytes)
            self.counters = replace(self.counters, state_bytes=bytes_)

    def _count(self, tokens: int, passes: int) -> None:
        was = self.counters
        self.counters = Counters(
            calls=was.calls + 1,
            passes=was.passes + passes,
            tokens=was.tokens + tokens,
            state_bytes=was.state_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a decoder is asked to do, put in order."""

    stepper: Counted
    batch: Batch
    limit: int
    seed: int
    processors: tuple[Processor, ...]
    stop: Stop | None
    grammar: Grammar

    @classmethod
    def of(cls, decoder: Decoder, stepper: Stepper, batch: Batch, limit: int, seed: int, stop: Stop | None) -> "Task":
        """A task with the decoder's grammar and the mask of the special symbols."""
        if limit < 0:
            raise ConfigError(f"limit must be at least 0, not {limit}")
        silent = set(SPECIALS.unpredictable) | (set() if decoder.config.unknown else {SPECIALS.unk})
        forbid = Forbid(Forbid.Config(tokens=tuple(sorted(silent - set(decoder.grammar.config.end)))))
        return cls(
            stepper=Counted(stepper),
            batch=batch,
            limit=limit,
            seed=seed,
            processors=(forbid,),
            stop=stop,
            grammar=decoder.grammar,
        )

    def adding(self, processors: Sequence[Processor]) -> "Task":
        """The same task with more processors."""
        return replace(self, processors=in_order((*self.processors, *processors)))


def in_order(processors: Sequence[Processor]) -> tuple[Processor, ...]:
    """Sort processors by kind; those of one kind stay in the order given."""
    return tuple(sorted(processors, key=lambda processor: KINDS.index(processor.kind)))


def begin(task: Task) -> Hypotheses:
    """One hypothesis a prompt, with a fresh state and the processors' memories; the model has consumed nothing."""
    prompt = Prompt.of(task.batch)
    capacity = prompt.tokens_PT.shape[1] + task.limit
    hypotheses = Hypotheses.begin(prompt, width=min(task.limit, 32))
    memories = {_key(i): m for i, p in enumerate(task.processors) if (m := p.init(hypotheses)) is not None}
    state = task.stepper.start(task.batch, capacity=capacity) if task.limit and hypotheses.batch else None
    return replace(hypotheses, state=state, extras=dict(memories))


def prefill(task: Task, live: Hypotheses) -> Hypotheses:
    """Consume every prompt but its last token."""
    if live.state is None or live.batch == 0:
        return live
    tokens_BT, layout = live.prompt.without_last(live.row_B)
    if tokens_BT.shape[1] == 0:
        return live
    return replace(live, state=task.stepper.prefill(tokens_BT, live.state, layout))


def process(task: Task, logits_BV: Tensor, live: Hypotheses) -> Tensor:
    """Scores (B, V) after every processor."""
    for i, processor in enumerate(task.processors):
        if processor.normalised:
            logits_BV = logits_BV.log_softmax(-1)
        memory = live.extras.get(_key(i))
        logits_BV = processor(logits_BV, live, memory if isinstance(memory, State) else None)
    return logits_BV


def accept(task: Task, tokens_B: Tensor, live: Hypotheses) -> Hypotheses:
    """Tell every processor with a memory what was chosen."""
    if not live.extras:
        return live
    extras = dict(live.extras)
    for i, processor in enumerate(task.processors):
        memory = extras.get(_key(i))
        if isinstance(memory, State) and (after := processor.accept(tokens_B, memory)) is not None:
            extras[_key(i)] = after
    return replace(live, extras=extras)


@torch.no_grad()
def search(task: Task, pick: Pick) -> Stream:
    """Choose token by token, one hypothesis a prompt."""
    live, done = begin(task), []
    ended = [token in task.grammar.config.end for token in live.prompt.last_P.tolist()]
    reasons = [Reason.END if end else Reason.LIVE if task.limit else Reason.LIMIT for end in ended]
    yield from _finish(live, reasons)
    live = _retire(task, live, reasons, done)
    feed_B, layout = live.last_B(), live.prompt.of_last(live.row_B)
    live = prefill(task, live)
    while live.batch:
        if live.state is None:
            raise ConfigError("the stepper gave no state")
        logits_BqV, state = task.stepper.step(feed_B[:, None], live.state, layout)
        layout = None  # the prompt's own positions end with the prompt
        live, tokens_B = _choose(task, pick, logits_BqV[:, -1], replace(live, state=state))
        tokens = tokens_B.tolist()
        reasons = _reasons(task, live, tokens)
        yield from _shown(task, live, tokens)
        if any(reasons):
            yield from _finish(live, reasons)
            tokens_B = tokens_B[_where(reasons, False, tokens_B.device)]
            live = _retire(task, live, reasons, done)
        live, feed_B = task.grammar.feed(live, tokens_B)
    return Hypotheses.concat([live, *done], task.stepper.counters)


def _choose(task: Task, pick: Pick, logits_BV: Tensor, live: Hypotheses) -> tuple[Hypotheses, Tensor]:
    """Append one token to every row, and tell which."""
    logits_BV = logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32))
    scores_BV = process(task, logits_BV, live)
    tokens_B = pick(scores_BV, live)
    at_B1 = tokens_B[:, None]
    search_B = scores_BV.log_softmax(-1).gather(1, at_B1)[:, 0]
    for row, value in enumerate(search_B.tolist()):
        if not value > -math.inf:
            _dead_end(live, row, scores_BV[row])
    raw_B = logits_BV.log_softmax(-1).gather(1, at_B1)[:, 0]
    return accept(task, tokens_B, live.append(tokens_B, raw_B, search_B)), tokens_B


def _reasons(task: Task, live: Hypotheses, tokens: list[int]) -> list[Reason]:
    """Why each row is finished, or that it is not."""
    stops = [False] * len(tokens) if task.stop is None else task.stop(live).tolist()
    full = Reason.LIMIT if live.used >= task.limit else Reason.LIVE
    return [
        Reason.END if token in task.grammar.config.end else Reason.STOP if stopped else full
        for token, stopped in zip(tokens, stops, strict=True)
    ]


def _shown(task: Task, live: Hypotheses, tokens: list[int]) -> list[Append | Revise]:
    rows = live.row_B.tolist()
    events = (task.grammar.event(i, token, live) for i, token in enumerate(tokens))
    return [replace(event, row=rows[event.row]) for event in events if event is not None]


def _finish(live: Hypotheses, reasons: list[Reason]) -> list[Event]:
    return [Finish(row, reason) for row, reason in zip(live.row_B.tolist(), reasons, strict=True) if reason]


def _retire(task: Task, live: Hypotheses, reasons: list[Reason], done: list[Hypotheses]) -> Hypotheses:
    """Move finished rows to ``done``; what stays goes on without them."""
    if not any(reasons):
        return live
    task.stepper.weigh(live.state)
    device = live.length_B.device
    codes_B = torch.tensor([int(reason) for reason in reasons], device=device)
    done.append(replace(live, state=None, extras={}).finished(codes_B).select(_where(reasons, True, device)))
    return live.select(_where(reasons, False, device))


def _where(reasons: list[Reason], finished: bool, device: torch.device) -> Tensor:
    rows = [i for i, reason in enumerate(reasons) if bool(reason) == finished]
    return torch.tensor(rows, dtype=torch.long, device=device)


def _dead_end(live: Hypotheses, row: int, scores_V: Tensor) -> None:
    where = f"row {int(live.row_B[row])} after {int(live.length_B[row])} tokens"
    if bool(scores_V.isnan().any()):
        raise DeadEnd(f"{where}: the model's logits are NaN; check its weights or use a wider dtype")
    raise DeadEnd(f"{where}: every token is forbidden; loosen the masks, or allow the end token")


def _key(number: int) -> str:
    return f"processor {number}"
