import pytest
import torch
from torch import nn
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.mixers.recurrent.lstm import LSTM


def pair(width: int, hidden: int, dtype: torch.dtype) -> tuple[LSTM, nn.LSTM]:
    """The same weights here and in torch.nn, which has two biases for our one."""
    ours, theirs = LSTM(width, LSTM.Config(hidden=hidden)).to(dtype), nn.LSTM(width, hidden, batch_first=True).to(dtype)
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(ours.input_weight)
        theirs.weight_hh_l0.copy_(ours.state_weight)
        theirs.bias_ih_l0.copy_(ours.bias - 0.25)
        theirs.bias_hh_l0.fill_(0.25)
    return ours, theirs


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1, 2, 17])
def test_equals_torch_with_states_and_gradients(length: int, dtype: torch.dtype) -> None:
    ours, theirs = pair(6, 6, dtype)
    x_BTD = torch.randn(3, length, 6, dtype=dtype)
    h_BH, c_BH = torch.randn(2, 3, 6, dtype=dtype).unbind()
    state = LSTM.State(h_BH=h_BH, c_BH=c_BH, length_B=torch.zeros(3, dtype=torch.long))
    y_BTD, after = ours(x_BTD, state)
    want_BTD, (want_h_1BH, want_c_1BH) = theirs(x_BTD, (h_BH[None], c_BH[None]))
    bound = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    assert_close(y_BTD, want_BTD, **bound)
    assert_close(after.h_BH, want_h_1BH[0], **bound)
    assert_close(after.c_BH, want_c_1BH[0], **bound)
    weight_BTD = torch.randn_like(y_BTD)
    (y_BTD * weight_BTD).sum().backward()
    (want_BTD * weight_BTD).sum().backward()
    for mine, other in (
        (ours.input_weight, theirs.weight_ih_l0),
        (ours.state_weight, theirs.weight_hh_l0),
        (ours.bias, theirs.bias_ih_l0),
    ):
        assert_close(mine.grad, other.grad, rtol=1e-5, atol=10 * bound["atol"])


def test_projection_follows_a_wider_cell() -> None:
    ours, theirs = pair(5, 9, torch.float64)
    x_BTD = torch.randn(2, 7, 5, dtype=torch.float64)
    assert_close(ours(x_BTD)[0], theirs(x_BTD)[0] @ ours.output.weight.T)
    assert sum(p.numel() for p in ours.parameters()) == 4 * 9 * (5 + 9 + 1) + 9 * 5


def test_loop_equals_the_fused_operator_on_ragged_rows() -> None:
    mixer, lengths_B = LSTM(6).double(), torch.tensor([0, 3, 8])
    x_BTD, (h_BH, c_BH) = torch.randn(3, 8, 6).double(), torch.randn(2, 3, 6).double().unbind()
    looped, fused = (run(x_BTD, h_BH, c_BH, lengths_B) for run in (mixer._loop, mixer._fused))
    assert_close(looped[1:], fused[1:])
    valid_BT = torch.arange(8) < lengths_B[:, None]
    assert_close(looped[0][valid_BT], fused[0][valid_BT])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_held_cell_does_not_move_by_a_bit(dtype: torch.dtype) -> None:
    mixer, x_BTD = LSTM(8).to(dtype), torch.randn(2, 300, 8, dtype=dtype)
    state = mixer(x_BTD[:, :5], mixer.initial_state(2))[1]
    held = mixer(x_BTD, state, layout=Layout(lengths_B=torch.tensor([0, 0])))[1]
    assert torch.equal(held.c_BH, state.c_BH)
    assert torch.equal(held.h_BH, state.h_BH)


def test_forget_bias_makes_an_untrained_cell_remember() -> None:
    assert LSTM(4).bias[4:8].tolist() == [1.0] * 4
    assert LSTM(4).bias[8:].abs().sum() == 0
    kept = []
    for bias in (0.0, 1.0):
        torch.manual_seed(0)
        mixer = LSTM(16, LSTM.Config(forget_bias=bias))
        state = mixer.initial_state(4)
        struck = LSTM.State(h_BH=state.h_BH, c_BH=state.c_BH + 1, length_B=state.length_B)
        x_BTD = torch.randn(4, 10, 16)
        kept.append((mixer(x_BTD, struck)[1].c_BH - mixer(x_BTD, state)[1].c_BH).abs().mean())
    assert kept[1] > 5 * kept[0]


def test_initial_outputs_have_the_size_of_torchs() -> None:
    x_BTD = torch.randn(16, 40, 32)
    ours = torch.stack([LSTM(32, LSTM.Config(forget_bias=0.0))(x_BTD)[0].std() for _ in range(8)]).mean()
    theirs = torch.stack([nn.LSTM(32, 32, batch_first=True)(x_BTD)[0].std() for _ in range(8)]).mean()
    assert abs(ours / theirs - 1) < 0.1


def test_state_is_float32_with_bfloat16_parameters() -> None:
    mixer = LSTM(4).bfloat16()
    state = mixer(torch.randn(1, 3, 4).bfloat16(), mixer.initial_state(1))[1]
    assert state.c_BH.dtype == torch.float32
    assert state.nbytes == mixer.state_bytes(3)


def test_negative_hidden_is_refused() -> None:
    with pytest.raises(ConfigError, match="hidden"):
        LSTM(4, LSTM.Config(hidden=-1))


@pytest.mark.gpu
def test_cudnn_takes_the_weights_without_a_warning_and_agrees() -> None:
    mixer, x_BTD = LSTM(32).cuda(), torch.randn(4, 20, 32, device="cuda")
    y_BTD = mixer(x_BTD)[0]
    y_BTD.sum().backward()
    want_BTD = mixer.cpu()(x_BTD.cpu())[0]
    assert_close(y_BTD.cpu(), want_BTD, rtol=1e-3, atol=1e-3)  # TF32 products
