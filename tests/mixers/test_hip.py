"""HiP: full attention while there is room, sparse beyond it, and a trained model turned without touching a weight."""

import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.core.sizes import Sizes
from seqloom.layers.tree_attention import TreeAttention
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.attention.hip import HiP, drop_in
from seqloom.models.backbone import Backbone
from seqloom.models.causal_lm import CausalLM

LITTLE = TreeAttention.Config(budget=8, keys=2, queries=4, stride=1, window=4, sinks=1)


def build(**options):
    torch.manual_seed(1)
    return HiP(8, HiP.Config(**options)).double().eval()


def test_training_and_short_sequences_are_full_attention():
    mixer, full = build(sparse=LITTLE), Attention(8).double()
    full.load_state_dict(mixer.attention.state_dict())
    short, long = torch.randn(2, 8, 8).double(), torch.randn(2, 80, 8).double()
    assert_close(mixer(short)[0], full(short)[0])
    assert (mixer(long)[0] - full(long)[0]).abs().max() > 1e-3
    assert torch.equal(mixer.train()(long)[0], full(long)[0])


@pytest.mark.parametrize("groups", [1, 4])
def test_little_is_read_all_the_same_in_steps_pieces_and_packed_rows(groups):
    config = TreeAttention.Config(budget=8, keys=2, queries=1, stride=1, window=4, sinks=1)
    mixer = build(sparse=config, attention=Attention.Config(kv_heads=groups))
    x_BTD = torch.randn(2, 61, 8).double()
    want = mixer(x_BTD)[0]
    state, pieces = mixer.initial_state(2), []
    for x in x_BTD.split([40, 1, 1, 12, 7], 1):
        y, state = mixer(x, state)
        pieces.append(y)
    assert_close(torch.cat(pieces, 1), want)
    packed = torch.cat([x_BTD[:1, :23], x_BTD[1:, :38]], 1)
    starts = torch.zeros(1, 61, dtype=torch.bool)
    starts[0, [0, 23]] = True
    got = mixer(packed, layout=Layout(starts_BT=starts))[0]
    assert_close(got[:, :23], mixer(x_BTD[:1, :23])[0])
    assert_close(got[:, 23:], mixer(x_BTD[1:, :38])[0])


def test_queries_that_share_a_list_do_not_read_values_from_the_future():
    """Which keys are read is chosen together; what is read never lies ahead."""
    mixer, x_BTD = build(sparse=LITTLE), torch.randn(1, 64, 8).double()
    x_BTD.requires_grad_()
    y_BTD = mixer(x_BTD)[0]
    for at in (0, 17, 42):
        (slope,) = torch.autograd.grad(y_BTD[:, at].sum(), x_BTD, retain_graph=True)
        assert slope[:, at + 1 :].abs().sum() == 0


def model(layers=2):
    torch.manual_seed(0)
    backbone = Backbone.Config(width=8, layers=layers, mixers=(Attention.Config(),))
    return CausalLM(Sizes(vocabulary=16), CausalLM.Config(backbone=backbone)).eval()


def test_a_trained_model_is_turned_and_turned_back():
    plain = model()
    tokens = torch.randint(6, 16, (1, 60))
    before = plain(tokens)[0].logits
    weights = {name: value.clone() for name, value in plain.state_dict().items()}
    assert drop_in(plain, LITTLE) == 2
    assert (plain(tokens)[0].logits - before).abs().max() > 1e-6
    assert all(torch.equal(value, weights[name]) for name, value in plain.state_dict().items())
    assert drop_in(plain, None) == 2
    assert torch.equal(plain(tokens)[0].logits, before)
    assert drop_in(plain, LITTLE, dense=1) == 1


def test_nothing_to_turn_is_an_error():
    with pytest.raises(ConfigError, match="no causal attention"):
        drop_in(model(), LITTLE, dense=2)
    with pytest.raises(ConfigError, match="without a window"):
        Attention.Config(window=4, sparse=LITTLE)


def test_reading_everything_again_is_what_the_mixer_says_of_itself():
    mixer = HiP(16)
    assert mixer.can != mixer.config.attention.traits()
    drop_in(mixer, None)
    assert mixer.can == mixer.attention.can == mixer.config.attention.traits()
