import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.attention.linformer import Linformer


def build(**options):
    torch.manual_seed(1)
    return Linformer(8, Linformer.Config(**{"mixtures": 5, "longest": 20} | options)).double()


@pytest.mark.parametrize(("share", "shape"), [("none", (2, 4)), ("heads", (2, 1)), ("kv", (1, 1))])
@pytest.mark.parametrize("length", [1, 13, 20])
def test_equals_the_equations(share, shape, length):
    mixer, x_BTD = build(share=share), torch.randn(2, length, 8).double()
    assert mixer.mixing.shape[:2] == shape
    q, k, v = ((x_BTD @ w.T).unflatten(2, (4, 2)) for w in mixer.qkv.weight.view(3, 8, 8))
    e, f = (mixer.mixing[at, :, :, :length].expand(4, -1, -1) for at in (0, -1))
    k, v = torch.einsum("hms,bshk->bhmk", e, k), torch.einsum("hms,bshk->bhmk", f, v)
    weight = torch.softmax(torch.einsum("bthk,bhmk->bhtm", q, k) / 2**0.5, -1)
    want = torch.einsum("bhtm,bhmk->bthk", weight, v).flatten(2) @ mixer.out.weight.T
    assert_close(mixer(x_BTD)[0], want)


def test_one_mixture_a_position_is_full_attention():
    """Mixing weights that are the identity leave keys and values as they are."""
    mixer, x_BTD = build(mixtures=20, share="kv"), torch.randn(2, 20, 8).double()
    with torch.no_grad():
        mixer.mixing.copy_(torch.eye(20))
    q, k, v = mixer.qkv(x_BTD).unflatten(2, (3, 4, -1)).permute(2, 0, 3, 1, 4)
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    assert_close(mixer(x_BTD)[0], mixer.out(want))


def test_beyond_its_length_it_refuses():
    with pytest.raises(ConfigError, match="reaches 20 positions"):
        build()(torch.randn(1, 21, 8).double())


def test_pads_mix_nothing_in():
    mixer, x_BTD = build(), torch.randn(1, 9, 8).double()
    loud = torch.cat([x_BTD, torch.full((1, 5, 8), 1e6).double()], 1)
    assert_close(mixer(loud, layout=Layout(lengths_B=torch.tensor([9])))[0][:, :9], mixer(x_BTD)[0])


@pytest.mark.parametrize(
    ("options", "said"), [({"heads": 3}, "divide"), ({"mixtures": 0}, "mixtures"), ({"share": "all"}, "share")]
)
def test_bad_options_are_named(options, said):
    with pytest.raises(ConfigError, match=said):
        build(**options)
