"""The engine: order of processors, their memories, and grammars whose tokens undo something."""

from dataclasses import dataclass, replace

import pytest
import torch

from seqloom.core.layout import Layout
from seqloom.core.sizes import Sizes
from seqloom.core.state import State
from seqloom.decoding._base import Append, Grammar, Processor, Revise
from seqloom.decoding._engine import Counted, in_order
from seqloom.decoding._hypotheses import prompts
from seqloom.decoding.greedy import Greedy
from seqloom.decoding.processors.forbid import Forbid
from seqloom.decoding.processors.min_p import MinP
from seqloom.decoding.processors.repetition import Repetition
from seqloom.decoding.processors.temperature import Temperature
from seqloom.decoding.processors.top_k import TopK
from seqloom.models.backbone import Backbone
from seqloom.models.causal_lm import CausalLM
from seqloom.testing.decoders import PROMPTS, SIZE, Table


def test_processors_are_sorted_by_kind_and_stay_in_order_within_one():
    given = [MinP(), TopK(), Temperature(), Forbid(), Repetition()]
    assert [type(p) for p in in_order(given)] == [Repetition, Forbid, Temperature, MinP, TopK]


@dataclass(frozen=True, kw_only=True)
class _Seen(State):
    count_BV: torch.Tensor


class Once(Processor):
    """No word twice: a memory that must follow its row."""

    kind = "mask"
    normalised = True

    def init(self, hypotheses):
        return _Seen(length_B=hypotheses.length_B, count_BV=torch.zeros(hypotheses.batch, SIZE))

    def __call__(self, logits_BV, hypotheses, memory):
        torch.testing.assert_close(logits_BV.exp().sum(1), torch.ones(len(logits_BV)))
        return logits_BV.masked_fill(memory.count_BV > 0, -torch.inf)

    def accept(self, tokens_B, memory):
        return replace(memory, count_BV=memory.count_BV.scatter_add(1, tokens_B[:, None], torch.ones(len(tokens_B), 1)))


def test_memories_follow_their_rows():
    table = Table.random(13)
    done = Greedy().decode(table, prompts(PROMPTS), limit=6, processors=[Once()])
    assert len(set(done.length_B.tolist())) > 1, "no row left the batch early: the test shows nothing"
    for row, prompt in enumerate(PROMPTS):
        alone = Greedy().decode(table, prompts([prompt]), limit=6, processors=[Once()]).tokens_of(0)
        assert done.tokens_of(row) == alone
        assert len(set(alone)) == len(alone)


class Undo(Grammar):
    """One word takes the word before it back; the model forgets both."""

    WORD = 6

    @dataclass(frozen=True, kw_only=True)
    class Config(Grammar.Config):
        pass

    def feed(self, hypotheses, tokens_B):
        undo_B = tokens_B == self.WORD
        if not bool(undo_B.any()):
            return hypotheses, tokens_B
        shown = [
            [
                *hypotheses.prompt.tokens_PT[int(p)][: int(hypotheses.prompt.lengths_P[p])].tolist(),
                *self.visible(hypotheses, i),
            ]
            for i, p in enumerate(hypotheses.row_B)
        ]
        lost_B = torch.where(undo_B, 1, 0)  # the state has consumed all but the last token, the word to undo
        return replace(hypotheses, state=hypotheses.state.rollback(lost_B)), torch.tensor([row[-1] for row in shown])

    def event(self, row, token, hypotheses):
        shown = self.visible(hypotheses, row)
        if token in self.config.end:
            return None
        return Revise(row, len(shown), ()) if token == self.WORD else Append(row, (token,))

    def visible(self, hypotheses, row):
        shown = []
        for token in hypotheses.tokens_of(row):
            shown = shown[:-1] if token == self.WORD else [*shown, token]
        return [token for token in shown if token not in self.config.end]


def test_what_is_visible_may_be_less_than_what_was_chosen():
    greedy = Greedy(Greedy.Config(grammar=Undo.Config()))
    table = Table(torch.full((SIZE, SIZE, SIZE), -9.0))
    table.logits_VVV[1, 7, 8] = table.logits_VVV[7, 8, 9] = table.logits_VVV[8, 9, 10] = 9.0
    table.logits_VVV[9, 10, Undo.WORD] = table.logits_VVV[10, Undo.WORD, 2] = 9.0
    events, shown = greedy.stream(_Forgetful(table), prompts([[7]]), limit=8), []
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            done = end.value
            break
        if isinstance(event, Append):
            shown += event.tokens
        if isinstance(event, Revise):
            shown = [*shown[: event.keep], *event.tokens]
    assert shown == greedy.visible(done)[0]
    assert done.tokens_of(0)[:4] == [8, 9, 10, Undo.WORD]
    assert greedy.visible(done)[0][:2] == [8, 9]


class _Forgetful:
    """A table that can go back, since its state is all that it read."""

    def __init__(self, table):
        self.table = table

    def start(self, batch, *, capacity=None):
        return _Log(length_B=torch.zeros(len(batch), dtype=torch.long), tokens_BL=torch.zeros(len(batch), 0).long())

    def observe(self, tokens_Bq, state, *, layout=None):
        assert layout is None
        tokens_BL = torch.cat([state.tokens_BL, tokens_Bq], 1)
        logits = torch.stack([self.table.after(row.tolist()) for row in tokens_BL])[:, None]
        from seqloom.core.outputs import Outputs

        return Outputs({"logits": logits}), replace(
            state, tokens_BL=tokens_BL, length_B=state.length_B + tokens_Bq.shape[1]
        )

    def step(self, tokens_Bq, state, *, layout=None):
        outputs, state = self.observe(tokens_Bq, state, layout=layout)
        return outputs.logits, state


@dataclass(frozen=True, kw_only=True)
class _Log(State):
    tokens_BL: torch.Tensor

    def rollback(self, n_B):
        return replace(
            self, tokens_BL=self.tokens_BL[:, : self.tokens_BL.shape[1] - int(n_B[0])], length_B=self.length_B - n_B
        )


def test_prompts_with_positions_and_parts_are_fed_as_they_say():
    torch.manual_seed(2)
    lm = CausalLM.Config(backbone=Backbone.Config(width=16, layers=1)).build(Sizes(vocabulary=20)).double().eval()
    batch = prompts([[7, 8, 9, 10], [9, 7]])
    parts = torch.tensor([[0, 1, 1, 2, 0], [0, 0, 0, 0, 0]])
    fed = replace(batch, layout=replace(batch.layout, parts_BT=parts))
    got = Greedy().decode(lm, fed, limit=1)
    logits = lm(fed.tokens_BT, layout=fed.layout)[0].logits.detach()
    raw = logits[torch.arange(2), torch.tensor([4, 2])].log_softmax(1)
    want = raw.gather(1, got.tokens_BL[:, :1])
    torch.testing.assert_close(got.raw_BL.double(), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lengths", [None, [2, 3]])
def test_the_counter_counts_valid_positions(lengths):
    counted = Counted(Table.random())
    state = counted.start(prompts([[7, 8], [9, 9]]))
    layout = None if lengths is None else Layout(lengths_B=torch.tensor(lengths))
    counted.prefill(torch.full((2, 3), 7), state, layout)
    assert counted.counters.tokens == (6 if lengths is None else 5)
    assert (counted.counters.calls, counted.counters.passes) == (1, 0)
