import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.sizes import Sizes
from seqloom.core.state import State
from seqloom.mixers.attention.attention import Attention
from seqloom.models.backbone import Backbone
from seqloom.models.encoder import Encoder, pool

BACKBONE = Backbone.Config(width=8, layers=1, mixers=(Attention.Config(causal=False),))


def encoder(classes=3, **options):
    config = Encoder.Config(backbone=BACKBONE, **options)
    return Encoder(Sizes(vocabulary=13, classes=classes), config).double().eval()


def tokens(*shape):
    return torch.randint(0, 13, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("how", ["mean", "last", "max"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_pooling_sees_valid_positions_alone(how, side):
    h, lengths = torch.randn(3, 6, 4), [6, 2, 0]
    layout = Layout(lengths_B=torch.tensor(lengths), side=side)
    got = pool(h, layout, how)
    for row, n in enumerate(lengths):
        valid = h[row, :n] if side == "right" else h[row, 6 - n :]
        want = {
            "mean": lambda v: v.mean(0),
            "last": lambda v: v[-1],
            "max": lambda v: v.amax(0),
        }[how](valid) if n else torch.zeros(4)  # fmt: skip
        assert_close(got[row], want)


@pytest.mark.parametrize("how", ["mean", "last", "max"])
def test_packed_rows_give_one_vector_a_segment(how):
    model, ids = encoder(pool=how), tokens(1, 7)
    starts = torch.zeros(1, 7, dtype=torch.bool)
    starts[0, [0, 3]] = True
    got = model(ids, layout=Layout(starts_BT=starts))[0]
    want = torch.cat([model(ids[:, :3])[0].logits, model(ids[:, 3:])[0].logits])
    assert_close(got.logits, want, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("how", ["mean", "last", "max"])
def test_padding_changes_nothing(how):
    model, ids = encoder(pool=how, positions=9), tokens(2, 9)
    got = model(ids, layout=Layout(lengths_B=torch.tensor([9, 4])))[0]
    assert_close(got.logits[1], model(ids[1:, :4])[0].logits[0], rtol=1e-9, atol=1e-11)
    assert_close(got["pooled"][1], model(ids[1:, :4])[0]["pooled"][0], rtol=1e-9, atol=1e-11)


def test_without_classes_there_is_no_head():
    outputs, _ = encoder(classes=0)(tokens(2, 5))
    assert set(outputs) == {"hidden", "pooled"}
    with pytest.raises(ConfigError, match="logits"):
        _ = outputs.logits


def test_an_empty_sequence_pools_to_zeros():
    assert_close(encoder()(tokens(2, 0))[0]["pooled"], torch.zeros(2, 8, dtype=torch.float64))


def test_an_encoder_takes_no_state():
    with pytest.raises(ConfigError, match="state"):
        encoder()(tokens(1, 2), State(length_B=torch.zeros(1)))
    with pytest.raises(ConfigError):
        encoder().initial_state(1)


@pytest.mark.parametrize("how", ["mean", "last", "max"])
def test_the_option_names_the_pooling(how):
    outputs, _ = encoder(pool=how)(tokens(2, 5))
    hidden = outputs.hidden[-1]
    want = {"mean": hidden.mean(1), "last": hidden[:, -1], "max": hidden.amax(1)}[how]
    assert_close(outputs["pooled"], want)


def test_learned_positions_end_where_they_were_told_to():
    assert encoder(positions=5)(tokens(2, 5))[0]["pooled"].shape == (2, 8)
    with pytest.raises(ConfigError, match="position 5"):
        encoder(positions=5)(tokens(2, 6))


def test_dropout_acts_on_the_embedding_and_on_the_pooled_vector_in_training_alone():
    model, ids = encoder(dropout=0.5), tokens(4, 6)
    assert_close(model(ids)[0].logits, model(ids)[0].logits)
    outputs, _ = model.train()(ids)
    share = (outputs.hidden[0] == 0).double().mean()
    assert 0.3 < share < 0.7
    assert not torch.equal(outputs.logits, model.head(outputs["pooled"]))
