import pytest
import torch
from torch.testing import assert_close

from seqloom.core.batch import Batch
from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.protocols import Stepper
from seqloom.core.sizes import Sizes
from seqloom.core.state import State
from seqloom.mixers.attention.attention import Attention
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.models.encoder import Encoder

SIZES = Sizes(vocabulary=13, channels=2)


def model(mixers="gru,attention", **options):
    backbone = Backbone.Config(width=8, layers=2, mixers=pattern(mixers))
    return CausalLM(SIZES, CausalLM.Config(backbone=backbone, **options)).double().eval()


def tokens(rows=2, length=9):
    return torch.randint(0, 13, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", [{}, {"positions": 9}, {"tie": False}, {"unpredicted": (0, 4)}], ids=str)
def test_steps_equal_the_whole(options):
    lm, ids = model(**options), tokens()
    assert isinstance(lm, Stepper)
    want, state, got = lm(ids)[0].logits, lm.initial_state(2, capacity=9), []
    for piece in (ids[:, :4], ids[:, 4:5], ids[:, 5:]):
        logits, state = lm.step(piece, state)
        got.append(logits)
    assert_close(torch.cat(got, 1), want, rtol=1e-9, atol=1e-11)
    assert state.length_B.tolist() == [9, 9]


def test_nothing_depends_on_the_future():
    lm, ids = model(positions=9), tokens(1)
    other = ids.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 13
    assert torch.equal(lm(ids)[0].logits[:, :5], lm(other)[0].logits[:, :5])
    assert not torch.equal(lm(ids)[0].logits[:, 5:], lm(other)[0].logits[:, 5:])


def test_logits_are_computed_when_somebody_looks(monkeypatch):
    lm, calls = model(), []
    monkeypatch.setattr(lm.head, "forward", lambda h: calls.append(1) or h)
    outputs, _ = lm(tokens())
    assert len(outputs.hidden) == 3
    assert not calls
    assert outputs.logits is outputs.logits
    assert calls == [1]


def test_unpredicted_ids_have_no_probability_and_pass_no_gradient():
    lm, ids = model(unpredicted=(1, 4)), tokens()
    log_p = lm(ids)[0].logits.log_softmax(-1)
    assert bool(log_p[..., [1, 4]].isneginf().all())
    assert_close(log_p.exp().sum(-1), torch.ones(2, 9, dtype=torch.float64))
    log_p[..., 7].sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in lm.parameters() if p.grad is not None)


def test_tied_weights_are_one_parameter():
    tied, free = model(), model(tie=False)
    assert tied.head.weight is tied.input.embedding.weight
    assert sum(p.numel() for p in free.parameters()) - sum(p.numel() for p in tied.parameters()) == 13 * 8


def test_values_enter_beside_or_instead_of_tokens():
    lm, values = model(), torch.randn(2, 9, 2).double()
    both, alone, plain = (
        lm(t, values_BTC=v)[0].logits for t, v in ((tokens(), values), (None, values), (tokens(), None))
    )
    assert not torch.equal(both, plain)
    assert alone.shape == plain.shape


def test_packed_rows_restart_positions():
    lm, ids = model(positions=5), tokens(1, 8)
    starts = torch.zeros(1, 8, dtype=torch.bool)
    starts[0, [0, 4]] = True
    got = lm(ids, layout=Layout(starts_BT=starts))[0].logits
    assert_close(got[:, 4:], lm(ids[:, 4:])[0].logits, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda: CausalLM(Sizes()), "vocabulary"),
        (lambda: model(positions=4)(tokens()), "position 8"),
        (lambda: model()(None), "tokens or values"),
        (lambda: model()(tokens(), State(length_B=torch.zeros(2))), "state"),
        (lambda: CausalLM(Sizes(vocabulary=13))(None, values_BTC=torch.ones(1, 2, 2)), "value channels"),
    ],
)
def test_misuse_is_an_error_that_says_why(act, word):
    with pytest.raises(ConfigError, match=word):
        act()


def test_a_model_that_sees_the_future_cannot_step():
    backbone = Backbone.Config(width=8, layers=1, mixers=(Attention.Config(causal=False),))
    lm = CausalLM(SIZES, CausalLM.Config(backbone=backbone))
    assert not lm.causal
    with pytest.raises(ConfigError):
        lm.step(tokens(), lm.start)


def test_pads_may_lie_beyond_the_last_learned_position():
    lm, ids = model(positions=4), tokens(2, 6)
    layout = Layout(lengths_B=torch.tensor([4, 2]))
    assert_close(lm(ids, layout=layout)[0].logits[0, :4], lm(ids[:1, :4])[0].logits[0])
    with pytest.raises(ConfigError, match="position 4"):
        lm(ids, layout=Layout(lengths_B=torch.tensor([5, 2])))


def test_a_context_is_not_left_out_without_a_word():
    batch = Batch(tokens_BT=tokens(), context=Batch(tokens_BT=tokens()))
    with pytest.raises(ConfigError, match="context"):
        model().run(batch)
    with pytest.raises(ConfigError, match="context"):
        model().start(batch)
    encoder = Encoder(Sizes(vocabulary=13, classes=2), Encoder.Config(backbone=Backbone.Config(width=8, layers=1)))
    with pytest.raises(ConfigError, match="context"):
        encoder.run(batch)


def test_learned_positions_compile_in_one_graph_and_take_empty_batches():
    lm, ids = model("gru", positions=9), tokens()
    compiled = torch.compile(lambda ids: lm(ids)[0].logits, backend="eager", fullgraph=True)
    assert_close(compiled(ids), lm(ids)[0].logits)
    assert lm(ids[:0])[0].logits.shape == (0, 9, 13)
    assert lm(ids[:, :0])[0].logits.shape == (2, 0, 13)


def test_dropout_acts_on_the_embedding_in_training_alone():
    lm, ids = model(dropout=0.5), tokens()
    assert not (lm(ids)[0].hidden[0] == 0).any()
    assert 0.3 < (lm.train()(ids)[0].hidden[0] == 0).double().mean() < 0.7


def test_embeddings_are_small_only_where_the_head_shares_them():
    sizes = {tie: CausalLM(Sizes(vocabulary=400), CausalLM.Config(tie=tie)) for tie in (True, False)}
    spread = {tie: float(model.input.embedding.weight.detach().std()) for tie, model in sizes.items()}
    assert spread[True] == pytest.approx(0.02, rel=0.1)
    assert spread[False] == pytest.approx(1.0, rel=0.1)
    assert float(sizes[False].head.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
