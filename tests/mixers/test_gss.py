import pytest
import torch
from torch.nn.functional import gelu
from torch.testing import assert_close

from seqloom.core.counting import count_macs
from seqloom.core.errors import ConfigError
from seqloom.mixers.ssm.dss import DSS
from seqloom.mixers.ssm.gss import GSS


def build(width=8, dtype=torch.float64, **options):
    torch.manual_seed(1)
    return GSS(width, GSS.Config(**{"state": 6, **options})).to(dtype)


@torch.no_grad()
def by_loops(mixer, x_BTD):
    """The paper's lines one after the other, the filter as a recurrence of each mode."""
    bank = mixer.bank
    L = torch.complex(-bank.decay_log.exp(), bank.frequency_log.exp())
    W = torch.view_as_complex(bank.readout[0])
    u_BTF, v_BTE = gelu(mixer.gate(x_BTD)), gelu(mixer.into(x_BTD))
    if mixer.norm is not None:
        v_BTE = mixer.norm.weight * v_BTE / (v_BTE.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    h_BEN, found = torch.zeros(len(x_BTD), *W.shape, dtype=W.dtype), []
    for v_BE in v_BTE.unbind(1):
        h_BEN = h_BEN * L.exp() + v_BE[..., None] * (L.exp() - 1) / L
        found.append((W * h_BEN).real.sum(-1) + mixer.skip * v_BE)
    return mixer.output(u_BTF * mixer.back(torch.stack(found, 1))), h_BEN / ((L.exp() - 1) / L)


@pytest.mark.parametrize("options", [{}, {"norm": False, "channels": 3, "hidden": 5}], ids=str)
def test_equals_the_papers_lines_by_loops(options):
    mixer, x_BTD = build(**options), torch.randn(2, 40, 8).double()
    want_BTD, want_BEN = by_loops(mixer, x_BTD)
    with torch.no_grad():
        assert_close(mixer(x_BTD)[0], want_BTD, rtol=1e-10, atol=1e-10)
        begin_BTD, state = mixer(x_BTD[:, :3], mixer.initial_state(2))
        rest_BTD, state = mixer(x_BTD[:, 3:], state)
    assert_close(torch.cat([begin_BTD, rest_BTD], 1), want_BTD, rtol=1e-10, atol=1e-10)
    assert_close(torch.view_as_complex(state.h_BEN2), want_BEN, rtol=1e-10, atol=1e-10)


def test_the_gate_sees_what_the_filter_gives_without_an_activation():
    """Twice the filter's output is twice the layer's."""
    mixer, x_BTD = build(), torch.randn(1, 9, 8).double()
    mixer.back.bias.data.zero_()
    mixer.output.bias.data.zero_()
    once_BTD = mixer(x_BTD)[0]
    with torch.no_grad():
        mixer.bank.readout.mul_(-2)
        mixer.skip.mul_(-2)
    assert_close(mixer(x_BTD)[0], -2 * once_BTD)


def test_the_filter_has_a_quarter_of_the_channels_and_of_the_work():
    """Counted while it runs, against a DSS of the same modes and the full width."""
    x_BTD = torch.randn(1, 512, 32)
    narrow, full = GSS(32), DSS(32, DSS.Config(state=512))
    assert narrow.channels == 8
    assert narrow.gate.out_features == 4 * 32
    counts = [count_macs(lambda x, m=mixer: m(x)[0], x_BTD).by_op for mixer in (narrow, full)]
    for op in ("long_conv", "vandermonde"):
        less, more = (sum(n for name, n in count.items() if op in name) for count in counts)
        assert 4 * less == more > 0
    start = [mixer.initial_state(1) for mixer in (narrow, full)]
    assert 4 * (start[0].nbytes - 8) == start[1].nbytes - 8
    assert GSS(3).channels == 1


def test_one_table_of_powers_gives_the_kernel_that_each_channel_would_have():
    mixer = build(state=512, channels=5, dtype=torch.float32)
    with torch.no_grad():
        got_EL, want_EL = mixer.kernel(1000)[0], mixer.bank.discrete().kernels(1000)[0]
        L = torch.complex(-mixer.bank.decay_log.double().exp(), mixer.bank.frequency_log.double().exp())
        c = torch.view_as_complex(mixer.bank.readout[0].double()) * (L.exp() - 1) / L
        exact_EL = (c @ (L[:, None] * torch.arange(1000)).exp()).real
    assert_close(got_EL, want_EL)
    assert_close(got_EL.double(), exact_EL, rtol=0, atol=1e-6 * float(exact_EL.abs().max()))


def test_eigenvalues_start_at_random_and_the_step_is_one():
    bank = GSS(8, GSS.Config(state=20000)).bank
    for value in (bank.decay_log, bank.frequency_log):
        assert float(value.detach().mean()) == pytest.approx(0, abs=0.03)
        assert float(value.detach().std()) == pytest.approx(1, rel=0.03)
    assert float(torch.corrcoef(torch.stack([bank.decay_log, bank.frequency_log]).detach())[0, 1]) < 0.03
    assert {name for name, _ in bank.named_parameters()} == {"decay_log", "frequency_log", "readout"}
    L, z = bank.eigenvalues()
    assert torch.equal(L.expand_as(z), z)


def test_parameters_of_the_filter_in_their_group():
    (group,) = GSS(8, GSS.Config(learning_rate=2e-4)).param_groups()
    assert set(group.names) == {"bank.decay_log", "bank.frequency_log", "bank.readout"}
    assert (group.lr, group.weight_decay) == (2e-4, 0.0)


def test_the_filter_stays_float32_under_autocast():
    mixer, x_BTD = build(dtype=torch.float32), torch.randn(1, 100, 8)
    k_RDL = mixer.kernel(100)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mixer.kernel(100), k_RDL)
        y_BTD, state = mixer(x_BTD, mixer.initial_state(1))
    assert y_BTD.dtype == torch.bfloat16
    assert state.h_BEN2.dtype == torch.float32


def test_goes_on_beyond_the_length_that_was_trained_on():
    """Nothing depends on a length: a kernel of 4000 begins with that of 1000, and has decayed before its end."""
    mixer = build(dtype=torch.float32, state=64)
    with torch.no_grad():
        short_EL, long_EL = mixer.kernel(1000)[0], mixer.kernel(4000)[0]
    assert_close(long_EL[:, :1000], short_EL, rtol=1e-4, atol=1e-5)
    assert float(long_EL[:, -1].abs().max()) < 1e-3 * float(long_EL.abs().max())


@pytest.mark.parametrize("options", [{"state": 0}, {"channels": -1}, {"hidden": -2}], ids=str)
def test_impossible_options_are_refused(options):
    with pytest.raises(ConfigError, match="at least"):
        GSS(4, GSS.Config(**options))
