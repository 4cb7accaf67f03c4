"""Every discovered decoder obeys the contract, and the contract catches decoders that do not."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch

from seqloom.core import discovery
from seqloom.core.specials import SPECIALS
from seqloom.decoding._base import Append, Decoder
from seqloom.decoding._engine import Task, search
from seqloom.testing import decoders as contract
from seqloom.testing.decoders import Table, check_decoder


def argmax(table: Table, prompt: Sequence[int], limit: int) -> list[int]:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + limit and tokens[-1] != SPECIALS.eos:
        logits = table.after(tokens).tolist()
        allowed = [SPECIALS.eos, *range(SPECIALS.count, len(logits))]
        tokens.append(min(allowed, key=lambda token: (-logits[token], token)))
    return tokens[len(prompt) :]


EXACT = {"greedy": argmax}
DECODERS = [name for name in discovery.names("decoding") if issubclass(discovery.get("decoding", name), Decoder)]


@pytest.mark.parametrize("name", DECODERS)
def test_contract(name):
    check_decoder(discovery.get("decoding", name)(), EXACT.get(name))


class _Broken(Decoder):
    """Greedy, but for one fault."""

    fault = ""

    def stream(self, stepper, batch, *, limit, seed=0, processors=(), stop=None):
        task = Task.of(self, stepper, batch, limit, seed, stop).adding(processors)
        if self.fault == "specials":
            task = replace(task, processors=())
        if self.fault in ("stale", "tensors"):
            task.stepper.step = partial(getattr(self, self.fault), task.stepper.step, {})
        events = search(task, self.pick)
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return self.change(end.value)
            if not (self.fault == "silent" and isinstance(event, Append)):
                yield event

    def stale(self, step, kept, tokens, state, layout=None):
        """Keep the state outside the hypotheses, where nobody selects it."""
        mine = kept.get("state", state)
        logits, kept["state"] = step(tokens, mine.select(torch.arange(len(tokens))), layout)
        return logits, kept["state"]

    def tensors(self, step, kept, tokens, state, layout=None):
        """Reorder the state's tensors instead of asking it to select."""
        logits, state = step(tokens.flip(0), state.map(lambda tensor: tensor.flip(0)), layout)
        return logits.flip(0), state.map(lambda tensor: tensor.flip(0))

    def pick(self, scores, hypotheses):
        if self.fault == "second":
            return scores.topk(2).indices[:, -1]
        if self.fault == "ties":
            return scores.shape[1] - 1 - scores.flip(1).argmax(1)
        if self.fault == "batch" and len(scores) > 1:
            return scores.roll(1, 0).argmax(1)
        if self.fault == "random":
            return scores.softmax(1).multinomial(1)[:, 0]
        return scores.argmax(1)

    def change(self, done):
        if self.fault == "scores":
            return replace(done, raw_BL=done.search_BL)
        if self.fault == "counters":
            return replace(done, counters=replace(done.counters, tokens=done.counters.tokens + 1))
        if self.fault == "reasons":
            return replace(done, reason_B=torch.full_like(done.reason_B, 3))
        return done


def test_the_broken_decoder_without_a_fault_is_sound():
    check_decoder(_Broken(), argmax)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("second", lambda d: contract.check_exact(d, argmax)),
        ("ties", lambda d: contract.check_exact(d, argmax)),
        ("stale", lambda d: contract.check_exact(d, argmax)),
        ("specials", contract.check_form),
        ("batch", contract.check_batch),
        ("tensors", contract.check_reorder),
        ("scores", contract.check_scores),
        ("silent", contract.check_events),
        ("counters", contract.check_counters),
        ("reasons", contract.check_edges),
        ("random", contract.check_seeds),
    ],
)
def test_the_contract_catches(fault, check):
    broken = _Broken()
    broken.fault = fault
    with pytest.raises(AssertionError):
        check(broken)


def test_the_contract_catches_a_decoder_that_ignores_dead_ends():
    class Deaf(_Broken):
        def stream(self, stepper, batch, *, limit, seed=0, processors=(), stop=None):
            return super().stream(stepper, batch, limit=limit)

    with pytest.raises(AssertionError, match="dead end"):
        contract.check_dead_end(Deaf())
