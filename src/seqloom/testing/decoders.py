"""The contract of every decoder, for our own and for third parties'.

Each check raises AssertionError with the name of what broke. ``check_decoder(decoder, exact)`` runs them all on table
models over a vocabulary of five words, small enough to know every answer by hand.

Shapes: B rows, q tokens of a call, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seqloom.core.batch import Batch
from seqloom.core.errors import DeadEnd
from seqloom.core.layout import Layout
from seqloom.core.outputs import Outputs
from seqloom.core.protocols import Stepper
from seqloom.core.specials import SPECIALS
from seqloom.core.state import State
from seqloom.decoding._base import Append, Decoder, Finish, Revise
from seqloom.decoding._hypotheses import Hypotheses, Reason, prompts
from seqloom.decoding.processors.forbid import Forbid

WORDS = 5
SIZE = SPECIALS.count + WORDS
PROMPTS = ((7, 8, 9), (), (10,), (6, 9), (8, 8, 8, 8))
LIMIT = 6

Exact = Callable[["Table", Sequence[int], int], list[int]]
"""The tokens (an end token included) that a decoder must write after a prompt (bos included), and the limit."""


@dataclass(frozen=True, kw_only=True)
class _Recent(State):
    """The last two tokens of each row."""

    recent_B2: Tensor


class Table:
    """A model that looks its logits up by the last two tokens; a Stepper that anybody can check by hand."""

    def __init__(self, logits_VVV: Tensor) -> None:
        """``logits_VVV[a, b]`` follow a then b."""
        self.logits_VVV = logits_VVV

    @classmethod
    def random(cls, seed: int = 0, scale: float = 2.0) -> "Table":
        """Normal logits; every special but the end token is improbable but not impossible."""
        rng = torch.Generator().manual_seed(seed)
        logits_VVV = scale * torch.randn(SIZE, SIZE, SIZE, generator=rng)
        logits_VVV[..., : SPECIALS.count] -= 1.0
        return cls(logits_VVV)

    def start(self, batch: Batch, *, capacity: int | None = None) -> State:
        """Nothing seen: two pads."""
        zeros_B = torch.zeros(len(batch), dtype=torch.long)
        return _Recent(length_B=zeros_B, recent_B2=torch.full((len(batch), 2), SPECIALS.pad))

    def step(self, tokens_Bq: Tensor, state: State, *, layout: Layout | None = None) -> tuple[Tensor, State]:
        """Logits by the last two tokens."""
        outputs, state = self.observe(tokens_Bq, state, layout=layout)
        return outputs.logits, state

    def observe(self, tokens_Bq: Tensor, state: State, *, layout: Layout | None = None) -> tuple[Outputs, State]:
        """As ``step``."""
        assert isinstance(state, _Recent), "the decoder gave another state back"
        length = tokens_Bq.shape[1]
        seen_BL = torch.cat([state.recent_B2, tokens_Bq], 1)
        logits_BqV = self.logits_VVV[seen_BL[:, 1:-1], tokens_Bq]
        given = None if layout is None else layout.lengths_B
        lengths_B = torch.full((len(tokens_Bq),), length) if given is None else given
        at_B2 = lengths_B[:, None] + torch.arange(2)
        after = replace(state, recent_B2=seen_BL.gather(1, at_B2), length_B=state.length_B + lengths_B)
        return Outputs({"logits": logits_BqV}), after

    def after(self, tokens: Sequence[int]) -> Tensor:
        """Logits (V,) after a whole sequence."""
        return self.logits_VVV[tuple([SPECIALS.pad, *tokens][-2:])]


@dataclass(frozen=True, kw_only=True)
class _Shuffled(State):
    """A state whose rows lie in another order than the decoder's."""

    inner: State
    place_B: Tensor
    """Where each of the decoder's rows lies."""

    def select(self, rows_R: Tensor) -> "_Shuffled":
        places = torch.arange(len(rows_R))
        return replace(
            self, inner=self.inner.select(self.place_B[rows_R]), place_B=places, length_B=self.length_B[rows_R]
        )


class Shuffled:
    """A stepper that reorders its rows at every call and answers as if it did not: states must survive ``select``."""

    def __init__(self, stepper: Stepper, seed: int = 0) -> None:
        """Wrap another stepper."""
        self.stepper, self.rng = stepper, torch.Generator().manual_seed(seed)

    def start(self, batch: Batch, *, capacity: int | None = None) -> State:
        """In order, to begin with."""
        inner = self.stepper.start(batch, capacity=capacity)
        return _Shuffled(length_B=inner.length_B, inner=inner, place_B=torch.arange(len(batch)))

    def step(self, tokens_Bq: Tensor, state: State, *, layout: Layout | None = None) -> tuple[Tensor, State]:
        """Shuffle, ask, put back."""
        outputs, state = self.observe(tokens_Bq, state, layout=layout)
        return outputs.logits, state

    def observe(self, tokens_Bq: Tensor, state: State, *, layout: Layout | None = None) -> tuple[Outputs, State]:
        """As ``step``."""
        assert isinstance(state, _Shuffled), "the decoder gave another state back"
        order_B = torch.randperm(len(tokens_Bq), generator=self.rng)  # inner row i is the decoder's row order[i]
        place_B = torch.argsort(order_B)
        if layout is not None:
            fields = {name: getattr(layout, name)[order_B] for name in layout.used()}
            layout = Layout(**fields)
        inner = state.inner.select(state.place_B[order_B])
        outputs, inner = self.stepper.observe(tokens_Bq[order_B], inner, layout=layout)
        logits_BqV = outputs.logits[place_B]
        return Outputs({"logits": logits_BqV}), replace(
            state, inner=inner, place_B=place_B, length_B=inner.length_B[place_B]
        )


def check_decoder(decoder: Decoder, exact: Exact | None = None) -> None:
    """Run every check.

    Args:
        decoder: under test, with its end token at the default.
        exact: what it must write, where that is one sequence.
    """
    if exact is not None:
        check_exact(decoder, exact)
    check_batch(decoder)
    check_reorder(decoder)
    check_form(decoder)
    check_scores(decoder)
    check_events(decoder)
    check_counters(decoder)
    check_edges(decoder)
    check_dead_end(decoder)
    check_seeds(decoder)


def check_exact(decoder: Decoder, exact: Exact) -> None:
    """The tokens equal brute force, for several models; exact ties go to the lowest id."""
    tables = [Table.random(seed) for seed in range(5)]
    coarse = Table.random(9)
    tables.append(Table((coarse.logits_VVV / 2).round()))  # full of ties
    for number, table in enumerate(tables):
        for limit in (1, LIMIT):
            got = _tokens(decoder.decode(table, prompts(PROMPTS), limit=limit))
            want = [exact(table, (SPECIALS.bos, *prompt), limit) for prompt in PROMPTS]
            assert got == want, f"exact: model {number}, limit {limit}: {got} instead of {want}"


def check_batch(decoder: Decoder) -> None:
    """A row gets the same tokens and scores alone, in a padded batch of any order, and padded on the left."""
    table = Table.random(1)
    whole = decoder.decode(table, prompts(PROMPTS), limit=LIMIT, seed=3)
    for row, prompt in enumerate(PROMPTS):
        alone = decoder.decode(table, prompts([prompt], keys=[row]), limit=LIMIT, seed=3)
        _same("alone", alone, whole.select((whole.row_B == row).nonzero()[:, 0]))
    order = [3, 0, 4, 2, 1]
    moved = decoder.decode(table, prompts([PROMPTS[i] for i in order], keys=order), limit=LIMIT, seed=3)
    for place, row in enumerate(order):
        there, here = (h.select((h.row_B == i).nonzero()[:, 0]) for h, i in ((moved, place), (whole, row)))
        _same("another order", there, here)
    right = prompts(PROMPTS)
    lengths = [1 + len(prompt) for prompt in PROMPTS]
    width = max(lengths)
    left = torch.tensor(
        [[SPECIALS.pad] * (width - n) + [SPECIALS.bos, *p] for n, p in zip(lengths, PROMPTS, strict=True)]
    )
    layout = Layout(lengths_B=torch.tensor(lengths), side="left")
    _same(
        "left padding", decoder.decode(table, replace(right, tokens_BT=left, layout=layout), limit=LIMIT, seed=3), whole
    )


def check_reorder(decoder: Decoder) -> None:
    """A model whose rows change places at every call gives the same results: all of the state is selected."""
    table = Table.random(2)
    plain = decoder.decode(table, prompts(PROMPTS), limit=LIMIT, seed=4)
    _same("reorder", decoder.decode(Shuffled(table), prompts(PROMPTS), limit=LIMIT, seed=4), plain)


def check_form(decoder: Decoder) -> None:
    """No special symbol is written but the end, once and last; lengths, reasons and padding agree."""
    done = decoder.decode(Table.random(3), prompts(PROMPTS), limit=LIMIT)
    assert sorted(set(done.row_B.tolist())) == list(range(len(PROMPTS))), "form: not every prompt has a result"
    for row in range(done.batch):
        tokens, reason = done.tokens_of(row), Reason(int(done.reason_B[row]))
        silent = {*SPECIALS.unpredictable, SPECIALS.unk}
        assert not silent & set(tokens), f"form: special symbols in {tokens}"
        assert SPECIALS.eos not in tokens[:-1], f"form: something follows the end in {tokens}"
        assert (tokens[-1:] == [SPECIALS.eos]) == (reason == Reason.END), f"form: {tokens} finished by {reason.name}"
        assert reason == Reason.END or len(tokens) == LIMIT, f"form: {tokens} stopped before the limit"
        rest = done.tokens_BL[row, len(tokens) :]
        assert bool((rest == done.pad).all()), "form: what follows the tokens is no padding"
    shown = decoder.visible(done)
    assert not any(SPECIALS.eos in tokens for tokens in shown), "form: the end is visible"


def check_scores(decoder: Decoder) -> None:
    """Raw scores are the model's log-probabilities, the end token counted once, before any processor."""
    table = Table.random(4)
    done = decoder.decode(table, prompts(PROMPTS), limit=LIMIT)
    for row in range(done.batch):
        tokens = [SPECIALS.bos, *PROMPTS[int(done.row_B[row])]]
        for column, token in enumerate(done.tokens_of(row)):
            want = table.after(tokens).double().log_softmax(0)[token]
            torch.testing.assert_close(done.raw_BL[row, column].double(), want, rtol=1e-5, atol=1e-6)
            tokens.append(token)
    torch.testing.assert_close(done.raw_B, done.raw_BL.sum(1))
    assert bool(torch.isfinite(done.final_B).all()), "scores: a final score is not finite"


def check_events(decoder: Decoder) -> None:
    """The events of a stream, replayed, give the visible tokens; each row finishes once, and nothing follows."""
    batch, seen, finished = prompts(PROMPTS), {row: [] for row in range(len(PROMPTS))}, {}
    events = decoder.stream(Table.random(5), batch, limit=LIMIT, seed=5)
    done = None
    while done is None:
        try:
            event = next(events)
        except StopIteration as end:
            done = end.value
            continue
        assert event.row not in finished, f"events: {event} comes after the row finished"
        if isinstance(event, Append):
            seen[event.row] = [*seen[event.row], *event.tokens]
        elif isinstance(event, Revise):
            seen[event.row] = [*seen[event.row][: event.keep], *event.tokens]
        elif isinstance(event, Finish):
            finished[event.row] = event.reason
    first = {int(row): i for i, row in reversed(list(enumerate(done.row_B)))}  # the best of each prompt
    shown = decoder.visible(done)
    for row, tokens in seen.items():
        assert tokens == shown[first[row]], f"events: row {row} replayed gives {tokens}, not {shown[first[row]]}"
        assert finished.get(row) == int(done.reason_B[first[row]]), f"events: row {row} finished by {finished.get(row)}"


def check_counters(decoder: Decoder) -> None:
    """Calls, processed positions and state bytes are what the model itself saw."""
    table = Table.random(6)
    seen: dict[str, Any] = {"calls": 0, "tokens": 0, "bytes": 0}
    answer = table.observe

    def observe(tokens_Bq: Tensor, state: State, *, layout: Layout | None = None) -> tuple[Outputs, State]:
        given = None if layout is None else layout.lengths_B
        seen["calls"] += 1
        seen["tokens"] += tokens_Bq.numel() if given is None else int(given.sum())
        seen["bytes"] = max(seen["bytes"], state.nbytes)
        return answer(tokens_Bq, state, layout=layout)

    table.observe = observe  # type: ignore[method-assign]
    cost = decoder.decode(table, prompts(PROMPTS), limit=LIMIT).counters
    assert cost.calls == seen["calls"], f"counters: {cost.calls} calls counted, {seen['calls']} made"
    assert cost.tokens == seen["tokens"], f"counters: {cost.tokens} tokens counted, {seen['tokens']} processed"
    assert cost.state_bytes == seen["bytes"], f"counters: {cost.state_bytes} state bytes, {seen['bytes']} seen"
    assert 0 < cost.passes <= cost.calls, f"counters: {cost.passes} passes of {cost.calls} calls"


def check_edges(decoder: Decoder) -> None:
    """Limit 0, no rows, a prompt that has ended already, and a model that ends at once."""
    nothing = decoder.decode(Table.random(7), prompts(PROMPTS), limit=0)
    assert _tokens(nothing) == [[]] * nothing.batch, "edges: limit 0 wrote something"
    assert nothing.counters.calls == 0, "edges: limit 0 asked the model"
    assert set(nothing.reason_B.tolist()) == {int(Reason.LIMIT)}, "edges: limit 0 is no limit"
    assert decoder.decode(Table.random(7), prompts([]), limit=3).batch == 0, "edges: no rows gave some"
    ended = decoder.decode(Table.random(7), prompts([[6, SPECIALS.eos], [7]]), limit=3)
    first = ended.select((ended.row_B == 0).nonzero()[:, 0])
    assert _tokens(first) == [[]] * first.batch, "edges: an ended prompt was continued"
    assert set(first.reason_B.tolist()) == {int(Reason.END)}, "edges: an ended prompt did not end"
    sure = Table(torch.full((SIZE, SIZE, SIZE), -50.0).index_fill(2, torch.tensor([SPECIALS.eos]), 50.0))
    for tokens in _tokens(decoder.decode(sure, prompts(PROMPTS), limit=LIMIT))[:1]:
        assert tokens == [SPECIALS.eos], f"edges: a model that ends at once wrote {tokens}"


def check_dead_end(decoder: Decoder) -> None:
    """A row without any allowed token is an error that says where, never NaN."""
    everything = Forbid(Forbid.Config(tokens=tuple(range(SIZE))))
    said = None
    try:
        decoder.decode(Table.random(8), prompts(PROMPTS), limit=LIMIT, processors=[everything])
    except DeadEnd as error:
        said = str(error)
    assert said is not None, "dead end: no error although every token is forbidden"
    assert "row" in said, f"dead end: the message names no row: {said}"


def check_seeds(decoder: Decoder) -> None:
    """The same seed gives the same result, bit for bit."""
    table = Table.random(10)
    once, again = (decoder.decode(table, prompts(PROMPTS), limit=LIMIT, seed=11) for _ in range(2))
    assert torch.equal(once.tokens_BL, again.tokens_BL), "seeds: two runs differ"
    assert torch.equal(once.raw_BL, again.raw_BL), "seeds: the scores of two runs differ"


def _tokens(done: Hypotheses) -> list[list[int]]:
    return [done.tokens_of(row) for row in range(done.batch)]


def _same(what: str, got: Hypotheses, want: Hypotheses) -> None:
    assert _tokens(got) == _tokens(want), f"{what}: {_tokens(got)} instead of {_tokens(want)}"
    for name in ("raw_B", "search_B", "final_B"):
        far = (getattr(got, name) - getattr(want, name)).abs()
        assert bool((far <= 1e-5).all()), f"{what}: {name} differs by {far.tolist()}"
    assert got.reason_B.tolist() == want.reason_B.tolist(), f"{what}: other reasons"
