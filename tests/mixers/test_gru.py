import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.recurrent.gru import GRU


def pair(width: int, hidden: int, dtype: torch.dtype) -> tuple[GRU, nn.GRU]:
    """The same weights here and in torch.nn, whose second bias matters in the reset alone."""
    ours, theirs = GRU(width, GRU.Config(hidden=hidden)).to(dtype), nn.GRU(width, hidden, batch_first=True).to(dtype)
    with torch.no_grad():
        ours.input_weight.copy_(theirs.weight_ih_l0)
        ours.state_weight.copy_(theirs.weight_hh_l0)
        ours.bias.copy_(theirs.bias_ih_l0)
        ours.bias[: 2 * hidden] += theirs.bias_hh_l0[: 2 * hidden]
        ours.reset_bias.copy_(theirs.bias_hh_l0[2 * hidden :])
    return ours, theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1, 2, 17])
def test_equals_torch_with_states_and_gradients(length: int, dtype: torch.dtype) -> None:
    ours, theirs = pair(6, 6, dtype)
    x_BTD, h_BH = torch.randn(3, length, 6, dtype=dtype), torch.randn(3, 6, dtype=dtype)
    y_BTD, after = ours(x_BTD, GRU.State(h_BH=h_BH, length_B=torch.zeros(3, dtype=torch.long)))
    want_BTD, want_h_1BH = theirs(x_BTD, h_BH[None])
    bound = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    assert_close(y_BTD, want_BTD, **bound)
    assert_close(after.h_BH, want_h_1BH[0], **bound)
    weight_BTD = torch.randn_like(y_BTD)
    (y_BTD * weight_BTD).sum().backward()
    (want_BTD * weight_BTD).sum().backward()
    for mine, other in (
        (ours.input_weight, theirs.weight_ih_l0),
        (ours.state_weight, theirs.weight_hh_l0),
        (ours.bias, theirs.bias_ih_l0),
        (ours.reset_bias, theirs.bias_hh_l0[12:]),
    ):
        other_grad = theirs.bias_hh_l0.grad[12:] if other.shape == (6,) else other.grad
        assert_close(mine.grad, other_grad, rtol=1e-5, atol=10 * bound["atol"])


def test_projection_follows_a_wider_unit() -> None:
    ours, theirs = pair(5, 9, torch.float64)
    x_BTD = torch.randn(2, 7, 5, dtype=torch.float64)
    assert_close(ours(x_BTD)[0], theirs(x_BTD)[0] @ ours.output.weight.T)
    assert sum(p.numel() for p in ours.parameters()) == 3 * 9 * (5 + 9 + 1) + 9 + 9 * 5


def test_state_is_that_of_each_rows_last_position() -> None:
    mixer, x_BTD = GRU(6), torch.randn(3, 8, 6)
    y_BTD, state = mixer(x_BTD, mixer.initial_state(3), layout=Layout(lengths_B=torch.tensor([0, 3, 8])))
    assert torch.equal(state.h_BH, torch.stack([torch.zeros(6), y_BTD[1, 2], y_BTD[2, 7]]))
    assert state.length_B.tolist() == [0, 3, 8]


def test_update_bias_makes_an_untrained_unit_remember() -> None:
    kept = []
    for bias in (0.0, 2.0):
        torch.manual_seed(0)
        mixer = GRU(16, GRU.Config(update_bias=bias))
        assert mixer.bias[16:32].tolist() == [bias] * 16
        state = mixer.initial_state(4)
        struck = GRU.State(h_BH=state.h_BH + 1, length_B=state.length_B)
        x_BTD = torch.randn(4, 10, 16)
        kept.append((mixer(x_BTD, struck)[1].h_BH - mixer(x_BTD, state)[1].h_BH).abs().mean())
    assert kept[1] > 5 * kept[0]


def test_initial_outputs_have_the_size_of_torchs() -> None:
    x_BTD = torch.randn(16, 40, 32)
    ours = torch.stack([GRU(32)(x_BTD)[0].std() for _ in range(8)]).mean()
    theirs = torch.stack([nn.GRU(32, 32, batch_first=True)(x_BTD)[0].std() for _ in range(8)]).mean()
    assert abs(ours / theirs - 1) < 0.1


def test_state_is_float32_with_bfloat16_parameters() -> None:
    mixer = GRU(4).bfloat16()
    state = mixer(torch.randn(1, 3, 4).bfloat16(), mixer.initial_state(1))[1]
    assert state.h_BH.dtype == torch.float32
    assert state.nbytes == mixer.state_bytes(3)


def test_negative_hidden_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden"):
        GRU(4, GRU.Config(hidden=-1))


@pytest.mark.gpu
def test_cudnn_takes_the_weights_without_a_warning_and_agrees() -> None:
    mixer, x_BTD = GRU(32).cuda(), torch.randn(4, 20, 32, device="cuda")
    y_BTD = mixer(x_BTD)[0]
    y_BTD.sum().backward()
    want_BTD = mixer.cpu()(x_BTD.cpu())[0]
    assert_close(y_BTD.cpu(), want_BTD, rtol=1e-3, atol=1e-3)  # TF32 products


def test_trained_and_compiled_and_gradient_free_forms_agree() -> None:
    mixer, x_BTD = GRU(6).double(), torch.randn(3, 9, 6).double()
    state = GRU.State(h_BH=torch.randn(3, 6).double(), length_B=torch.zeros(3, dtype=torch.long))
    trained_BTD = mixer(x_BTD, state)[0]
    with torch.no_grad():
        assert_close(mixer(x_BTD, state)[0], trained_BTD)
    assert_close(torch.compile(mixer, backend="aot_eager")(x_BTD, state)[0], trained_BTD)


def test_an_output_that_is_written_into_does_not_falsify_the_gradient() -> None:
    y_BTD = GRU(6)(torch.randn(2, 5, 6))[0]
    with pytest.raises(RuntimeError, match=r"(inplace|in-place|modified)"):
        y_BTD.zero_().sum().backward()
