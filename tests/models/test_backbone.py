import pytest
import torch
from torch.nn.functional import silu
from torch.testing import assert_close

from seqloom.core.component import Value
from seqloom.core.errors import ConfigError
from seqloom.core.layout import PLAIN, Layout
from seqloom.layers.mlp import MLP
from seqloom.layers.norm import Norm
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.recurrent.gru import GRU
from seqloom.models.backbone import Backbone, pattern

HYBRID = pattern("gru*2,attention")


def stack(**options):
    return Backbone(Backbone.Config(**{"width": 8, "layers": 3, "mixers": HYBRID} | options)).double()


def test_a_pattern_is_read_and_repeated():
    assert pattern(" gru * 2 , attention") == (GRU.Config(), GRU.Config(), Attention.Config())
    kinds = [type(block.mixer) for block in stack(layers=5).blocks]
    assert kinds == [GRU, GRU, Attention, GRU, GRU]


@pytest.mark.parametrize("text", ["gru*0", "gru*x", "gru*", "", "gru,,gru", "guru"])
def test_a_pattern_that_says_nothing_is_refused(text):
    with pytest.raises(ConfigError):
        pattern(text)


def test_a_pattern_longer_than_the_stack_is_refused():
    with pytest.raises(ConfigError, match="2 layers"):
        stack(layers=2)


@pytest.mark.parametrize("options", [{}, {"gated": True}, {"mlp": None}], ids=str)
def test_one_layer_by_its_formula(options):
    one = stack(layers=1, mixers=pattern("gru"), **options)
    block, x = one.blocks[0], torch.randn(2, 5, 8, dtype=torch.float64)
    y = block.mixer(block.mixer_norm(x))[0]
    y = x + (y * silu(block.gate(block.mixer_norm(x))) if block.gate is not None else y)
    y = y if block.mlp is None else y + block.mlp(block.mlp_norm(y))
    hidden, state = one(x)
    assert state is None
    assert len(hidden) == 2
    assert_close(hidden, (x, one.norm(y)))


@pytest.mark.parametrize("cuts", [[11], [4, 1, 6], [1] * 11], ids=str)
def test_chunks_and_steps_equal_the_whole(cuts):
    net, x = stack(), torch.randn(2, 11, 8, dtype=torch.float64)
    want, state, pieces = net(x)[0][-1], net.initial_state(2), []
    for piece in x.split(cuts, 1):
        hidden, state = net(piece, state)
        pieces.append(hidden[-1])
    assert_close(torch.cat(pieces, 1), want, rtol=1e-9, atol=1e-11)
    assert state.length_B.tolist() == [11, 11]
    assert {name: layer.length_B.tolist() for name, layer in state.layers.items()} == {n: [11, 11] for n in "012"}


def test_selected_rows_go_on_as_they_were():
    net, x, more = stack(), torch.randn(3, 4, 8).double(), torch.randn(3, 2, 8).double()
    _, state = net(x, net.initial_state(3))
    rows = torch.tensor([2, 0, 2])
    got = net(more[rows], state.fork().select(rows))[0][-1]
    assert_close(got, net(more, state)[0][-1][rows], rtol=1e-9, atol=1e-11)


def test_select_asks_nested_states_to_select():
    net = stack()
    _, state = net(torch.randn(2, 4, 8).double(), net.initial_state(2, capacity=64))
    asked, cache = [], state.layers["2"]
    object.__setattr__(cache, "select", lambda rows: asked.append(rows) or cache)
    state.select(torch.tensor([0]))
    assert len(asked) == 1


def test_padding_changes_no_valid_position():
    net, x = stack(), torch.randn(2, 6, 8).double()
    got = net(x, layout=Layout(lengths_B=torch.tensor([6, 3])))[0][-1]
    assert_close(got[1, :3], net(x[1:, :3])[0][-1][0], rtol=1e-9, atol=1e-11)


def test_causal_only_where_every_mixer_is():
    assert stack().causal
    assert not stack(mixers=(GRU.Config(), Attention.Config(causal=False))).causal


def test_the_last_maps_shrink_with_depth():
    torch.manual_seed(0)
    deep = stack(layers=8, width=32, mixers=pattern("gru"), mlp=MLP.Config())
    torch.manual_seed(0)
    shallow = stack(layers=1, width=32, mixers=pattern("gru"), mlp=MLP.Config())
    ratio = deep.blocks[0].mlp.down.weight.std() / shallow.blocks[0].mlp.down.weight.std()
    assert_close(ratio.item(), 8**-0.5, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("wide", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_the_stream_keeps_its_dtype_under_autocast(wide, dtype):
    net = stack(residual_float32=wide, mixers=pattern("attention")).float()
    with torch.autocast("cpu", torch.bfloat16):
        hidden, _ = net(torch.randn(1, 4, 8))
    assert hidden[1].dtype == dtype


def test_dropout_acts_in_training_alone():
    net, x = stack(dropout=0.5), torch.randn(1, 4, 8).double()
    assert not torch.equal(net(x)[0][-1], net(x)[0][-1])
    net.eval()
    assert torch.equal(net(x)[0][-1], net(x)[0][-1])


def test_the_config_survives_json():
    config = Backbone.Config(width=8, layers=3, mixers=HYBRID, mlp=None)
    assert Value.from_json(config.to_json()) == config
    assert PLAIN.plain


def test_options_build_what_they_say():
    assert all(block.mlp is None for block in stack(mlp=None).layers)
    assert all((block.gate is not None) == gated for gated in (False, True) for block in stack(gated=gated).layers)
    layer = stack(norm=Norm.Config(kind="layer", eps=0.5))
    norms = [layer.norm, *(norm for block in layer.layers for norm in (block.mixer_norm, block.mlp_norm))]
    assert all(norm.bias is not None and norm.config.eps == 0.5 for norm in norms)
