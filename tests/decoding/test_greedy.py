"""Greedy decoding of real models: batches, padding, steps and limits."""

import pytest
import torch

from seqloom.core.batch import Batch
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.sizes import Sizes
from seqloom.decoding._base import Append, Finish, stop_at
from seqloom.decoding._hypotheses import Reason, prompts
from seqloom.decoding.greedy import Greedy
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.testing.decoders import Shuffled, Table

PROMPTS = [[7, 8, 9], [], [10], [9, 9, 9, 9, 9]]


def model(mixers="attention"):
    torch.manual_seed(1)
    lm = CausalLM.Config(backbone=Backbone.Config(width=16, layers=2, mixers=pattern(mixers))).build(
        Sizes(vocabulary=20)
    )
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.mul_(5)
    return lm.double().eval()


@pytest.mark.parametrize("mixers", ["attention", "gru", "lstm,attention"])
def test_greedy_follows_the_argmax_of_whole_passes(mixers):
    lm = model(mixers)
    done = Greedy().decode(lm, prompts(PROMPTS), limit=12)
    for row, prompt in enumerate(PROMPTS):
        tokens = [1, *prompt]
        for token in done.tokens_of(row):
            logits = lm(torch.tensor([tokens]))[0].logits[0, -1].detach()
            raw = logits.log_softmax(0)[token]
            column = len(tokens) - 1 - len(prompt)
            torch.testing.assert_close(done.raw_BL[row, column].double(), raw, rtol=1e-5, atol=1e-6)
            logits[[0, 1, 3, 4, 5]] = -torch.inf
            assert int(logits.argmax()) == token
            tokens.append(token)


@pytest.mark.parametrize("mixers", ["attention", "gru"])
def test_rows_that_change_places_at_every_call_change_nothing(mixers):
    lm = model(mixers)
    plain = Greedy().decode(lm, prompts(PROMPTS), limit=8)
    moved = Greedy().decode(Shuffled(lm), prompts(PROMPTS), limit=8)
    assert torch.equal(plain.tokens_BL, moved.tokens_BL)


def test_finished_rows_cost_nothing():
    table = Table.random(3, scale=1.0)
    table.logits_VVV[..., 2] += 2.0
    alone = [Greedy().decode(table, prompts([p]), limit=20) for p in PROMPTS]
    together = Greedy().decode(table, prompts(PROMPTS), limit=20)
    assert len({int(h.length_B) for h in alone}) > 1
    assert together.counters.tokens == sum(h.counters.tokens for h in alone)


def test_ties_go_to_the_lowest_id_in_wide_and_narrow_vocabularies():
    for size in (11, 16, 1000):
        logits = torch.zeros(size, size, size) if size < 100 else torch.zeros(1, 1, size).expand(size, size, size)
        banned_end = Table(logits)
        assert Greedy().decode(banned_end, prompts([[7]] * 3), limit=1).tokens_BL.tolist() == [[2]] * 3


def test_the_unknown_symbol_is_written_only_where_allowed():
    table = Table(torch.zeros(11, 11, 11).index_fill(2, torch.tensor([3]), 5.0))
    assert Greedy().decode(table, prompts([[7]]), limit=1).tokens_of(0) == [2]
    assert Greedy(Greedy.Config(unknown=True)).decode(table, prompts([[7]]), limit=1).tokens_of(0) == [3]


def test_a_stop_rule_ends_a_row_after_its_sequence():
    table = Table.random(3)
    free = Greedy().decode(table, prompts(PROMPTS), limit=12)
    tokens = free.tokens_of(0)
    assert len(tokens) >= 3
    stopped = Greedy().decode(table, prompts(PROMPTS), limit=12, stop=stop_at(tokens[1:3], [19, 19]))
    assert stopped.tokens_of(0)[-2:] == tokens[1:3]
    assert stopped.reason_B[0] == Reason.STOP
    assert len(stopped.tokens_of(0)) <= 3


def test_a_stream_tells_tokens_as_they_come():
    events = Greedy().stream(Table.random(3), prompts([[7]]), limit=3)
    first = next(events)
    assert isinstance(first, Append)
    assert [type(event) for event in events] == [Append, Append, Finish]


def test_gradients_are_left_as_they_are_between_the_events_of_a_stream():
    lm = model()
    for _ in Greedy().stream(lm, prompts(PROMPTS), limit=2):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    done = Greedy().decode(lm, prompts(PROMPTS), limit=2)
    assert not done.raw_BL.is_inference()


@pytest.mark.parametrize(
    ("batch", "word"),
    [
        (Batch(tokens_BT=torch.zeros(2, 0, dtype=torch.long)), "empty"),
        (
            Batch(tokens_BT=torch.ones(2, 3, dtype=torch.long), layout=Layout(lengths_B=torch.tensor([3, 0]))),
            "prompt 1",
        ),
        (Batch(values_BTC=torch.zeros(1, 2, 3)), "values"),
        (
            Batch(tokens_BT=torch.ones(1, 2, dtype=torch.long), layout=Layout(starts_BT=torch.ones(1, 2).bool())),
            "starts",
        ),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(batch, word):
    with pytest.raises(ConfigError, match=word):
        Greedy().decode(Table.random(), batch, limit=2)


def test_a_negative_limit_is_refused():
    with pytest.raises(ConfigError, match="limit"):
        Greedy().decode(Table.random(), prompts(PROMPTS), limit=-1)
