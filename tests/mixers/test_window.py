import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.mixers.attention.attention import Attention
from seqloom.mixers.attention.window import Window


def build(**options):
    torch.manual_seed(1)
    return Window(8, Window.Config(**options)).double().eval()


@pytest.mark.parametrize("window", [1, 3, 64])
def test_without_sinks_it_is_attention_with_a_window(window):
    mixer, other = build(window=window), Attention(8, Attention.Config(window=window)).double()
    other.load_state_dict(mixer.state_dict())
    x_BTD = torch.randn(2, 29, 8).double()
    assert_close(mixer(x_BTD)[0], other(x_BTD)[0])


@pytest.mark.parametrize("sinks", [0, 2, 5])
def test_sinks_and_window_are_one_softmax(sinks):
    mixer, x_BTD = build(window=3, sinks=sinks, rotary=None, kv_heads=2), torch.randn(2, 19, 8).double()
    q, k, v = mixer._heads(x_BTD, torch.arange(19)[None])
    at = torch.arange(19)
    seen = ((at > at[:, None] - 3) | (at < sinks)) & (at <= at[:, None])
    want = scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True).transpose(1, 2).flatten(2)
    assert_close(mixer(x_BTD)[0], mixer.out(want))
    state, pieces = mixer.initial_state(2), []
    for x in x_BTD.split([1, 4, 1, 6, 7], 1):
        y, state = mixer(x, state)
        pieces.append(y)
    assert_close(torch.cat(pieces, 1), mixer.out(want))


def test_the_state_does_not_grow():
    mixer = build(window=4, sinks=2)
    sizes = []
    with torch.no_grad():
        for length in (1, 5, 500):
            sizes.append(mixer(torch.randn(1, length, 8).double(), mixer.initial_state(1))[1].nbytes)
    assert len(set(sizes)) == 1
    assert sizes[0] == mixer.state_bytes(10**6)


@pytest.mark.parametrize(
    ("options", "said"), [({"window": 0}, "window"), ({"sinks": -1}, "sinks"), ({"kv_heads": 3}, "divide")]
)
def test_bad_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        Window(8, Window.Config(**options))
