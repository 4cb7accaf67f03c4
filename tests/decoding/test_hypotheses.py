"""Hypotheses: append, select, roll back, join."""

from dataclasses import replace

import pytest
import torch

from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.decoding._base import stop_at
from seqloom.decoding._hypotheses import Counters, Hypotheses, Prompt, Reason, prompts
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM

PROMPTS = [[7, 8], [9], []]


def started(width=2):
    return Hypotheses.begin(Prompt.of(prompts(PROMPTS)), width=width)


def tensor(*values):
    return torch.tensor(values)


def test_append_grows_the_buffers_and_keeps_what_was_there():
    hypotheses = started()
    for step in range(40):
        tokens = tensor(6, 7, 8) + step
        hypotheses = hypotheses.append(tokens, tokens * -0.1, tokens * -0.2)
    assert hypotheses.tokens_of(1) == list(range(7, 47))
    torch.testing.assert_close(hypotheses.search_B, 2 * hypotheses.raw_B)
    torch.testing.assert_close(hypotheses.raw_B[0], torch.tensor(-0.1 * sum(range(6, 46))))


def test_select_repeats_reorders_and_drops():
    hypotheses = started().append(tensor(6, 7, 8), torch.zeros(3), torch.zeros(3)).select(tensor(2, 0, 0))
    assert hypotheses.row_B.tolist() == [2, 0, 0]
    assert hypotheses.tokens_BL[:, 0].tolist() == [8, 6, 6]
    assert hypotheses.last_B().tolist() == [8, 6, 6]
    tokens, held = hypotheses.read()
    assert [row[keep].tolist() for row, keep in zip(tokens, held, strict=True)] == [[1, 8], [1, 7, 8, 6], [1, 7, 8, 6]]


@pytest.mark.parametrize("mixers", ["attention"])
def test_rollback_is_as_if_the_tokens_had_never_been(mixers):
    lm = CausalLM.Config(backbone=Backbone.Config(width=16, mixers=pattern(mixers))).build(Sizes(vocabulary=60))
    lm = lm.double().eval()
    batch = prompts([[7, 8], [9, 9], [10, 11]])
    with torch.no_grad():
        _, state = lm.step(batch.tokens[:, :-1], lm.start(batch))
        live = replace(Hypotheses.begin(Prompt.of(batch)), state=state)
        for token in (20, 21, 22):
            _, state = lm.step(live.last_B()[:, None], live.state)
            live = replace(live, state=state).append(torch.full((3,), token), torch.ones(3), torch.ones(3))
        back = live.rollback(tensor(3, 1, 2))
        assert [back.tokens_of(row) for row in range(3)] == [[], [20, 21], [20]]
        assert back.last_B().tolist() == [8, 21, 20]
        assert back.raw_B.tolist() == [0, 2, 1]
        logits, _ = lm.step(back.last_B()[:, None], back.state)
        for row, tokens in enumerate(([1, 7, 8], [1, 9, 9, 20, 21], [1, 10, 11, 20])):
            want = lm(torch.tensor([tokens]))[0].logits[0, -1]
            torch.testing.assert_close(logits[row, 0], want, rtol=1e-10, atol=1e-12)


def test_more_than_was_chosen_cannot_be_taken_back():
    with pytest.raises(ConfigError, match="taken back"):
        started().rollback(tensor(1, 0, 0))


def test_results_are_joined_by_prompt_and_cut_to_the_longest():
    short = started().append(tensor(6, 7, 8), torch.zeros(3), torch.zeros(3)).finished(tensor(1, 1, 1))
    long = started(8).append(tensor(3, 4, 5), torch.ones(3), torch.ones(3))
    long = long.append(tensor(3, 4, 5), torch.ones(3), torch.ones(3)).finished(tensor(2, 2, 2))
    whole = Hypotheses.concat([long.select(tensor(1)), short.select(tensor(2, 0))], Counters(calls=2))
    assert whole.row_B.tolist() == [0, 1, 2]
    assert whole.tokens_BL.tolist() == [[6, 0], [4, 4], [8, 0]]
    assert whole.reason_B.tolist() == [Reason.END, Reason.LIMIT, Reason.END]
    assert whole.counters.calls == 2


def test_counters_add_up_over_models():
    both = Counters(calls=1, passes=1, tokens=5, state_bytes=8) + Counters(calls=2, passes=1, tokens=7, state_bytes=2)
    assert both == Counters(calls=3, passes=2, tokens=12, state_bytes=10)


def test_a_row_that_goes_back_is_live_again():
    hypotheses = started().append(tensor(6, 7, 8), torch.zeros(3), torch.zeros(3))
    ended = replace(hypotheses, reason_B=torch.full((3,), int(Reason.STOP)))
    assert ended.rollback(tensor(1, 0, 1)).reason_B.tolist() == [Reason.LIVE, Reason.STOP, Reason.LIVE]


def test_a_stop_sequence_needs_all_of_its_tokens():
    rule, hypotheses, ends = stop_at([8, 8], [6]), started(), []
    for _ in range(2):
        hypotheses = hypotheses.append(tensor(6, 7, 8), torch.zeros(3), torch.zeros(3))
        ends.append(rule(hypotheses).tolist())
    assert ends == [[True, False, False], [True, False, True]]
    with pytest.raises(ConfigError, match="empty stop sequence"):
        stop_at([7], [])
