import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import layer_norm, logsigmoid, silu
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout
from seqloom.kernels.decay_attention import normalised_decay_attention
from seqloom.layers.rotary import Rotary
from seqloom.mixers.recurrent import _matrix_memory
from seqloom.mixers.recurrent.mlstm import MLSTM

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def build(width=8, dtype=torch.float64, **options):
    """A mixer whose gates listen: at the start their weights are zero."""
    torch.manual_seed(1)
    mixer = MLSTM(width, MLSTM.Config(**options)).to(dtype)
    for name, value in mixer.named_parameters():
        if name == "gates.weight" or (value.ndim == 1 and "gates" not in name):
            torch.nn.init.normal_(value)
    return mixer


def by_steps(mixer, x_BTD):
    state, pieces = mixer.initial_state(len(x_BTD)), []
    for x_B1D in x_BTD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1), state


def memory_inputs(size=1.0, length=11, dtype=torch.float64, pushed=0.0):
    """Queries, keys, values, and logarithms of the gates; ``pushed`` drives each gate to one side or the other."""
    rng = torch.Generator().manual_seed(3)
    B, H, K, V = 2, 3, 4, 5
    q, k = (torch.randn(B, length, H, K, generator=rng).to(dtype) for _ in range(2))
    v = torch.randn(B, length, H, V, generator=rng).to(dtype)
    log_f, log_i = (size * torch.randn(B, length, H, generator=rng).to(dtype) for _ in range(2))
    side = torch.randint(0, 2, (2, B, length, H), generator=rng) * 2 - 1
    return q, k, v, logsigmoid(log_f + pushed * side[0]), log_i + pushed * side[1]


def zeros(q, v):
    B, _, H, K = q.shape
    return q.new_zeros(B, H, K, v.shape[3]), q.new_zeros(B, H, K), q.new_zeros(B, H)


def matrix_form(q, k, v, log_f, log_i, both=False):
    """The sum over all pairs of positions by each pair's weight, whose logarithms are lifted row by row."""
    T = q.shape[1]
    log_d = q.new_full((q.shape[0], q.shape[2], T, T), -math.inf)
    for t in range(T):
        for j in range(T if both else t + 1):
            between = log_f[:, j + 1 : t + 1] if j <= t else log_f[:, t:j]
            log_d[:, :, t, j] = between.sum(1) + log_i[:, j]
    m = log_d.amax(-1, keepdim=True).clamp_min(0)
    weight = torch.einsum("bthk,bjhk->bhtj", q, k) * (log_d - m).exp()
    divisor = torch.maximum(weight.sum(-1, keepdim=True).abs(), (-m).exp())
    return torch.einsum("bhtj,bjhv->bthv", weight / divisor, v)


def plain_loop(q, k, v, log_f, log_i):
    """The recurrence as it is written in the paper, without a stabiliser."""
    (c, n, _), outputs = zeros(q, v), []
    for t in range(q.shape[1]):
        f, i = log_f[:, t].exp()[..., None], log_i[:, t].exp()[..., None]
        c = f[..., None] * c + i[..., None] * k[:, t, :, :, None] * v[:, t, :, None]
        n = f * n + i * k[:, t]
        weight = (n * q[:, t]).sum(-1, keepdim=True)
        outputs.append((q[:, t, :, :, None] * c).sum(2) / weight.abs().clamp_min(1))
    return torch.stack(outputs, 1), c, n


def stepped(q, k, v, log_f, log_i):
    memory, outputs = zeros(q, v), []
    for t in range(q.shape[1]):
        at = slice(t, t + 1)
        h, *memory = _matrix_memory.step((q[:, at], k[:, at], v[:, at]), (log_f[:, at], log_i[:, at]), tuple(memory))
        outputs.append(h)
    return torch.cat(outputs, 1), *memory


def chunked(q, k, v, log_f, log_i, size=4):
    memory, outputs = zeros(q, v), []
    for at in range(0, q.shape[1], size):
        cut = (x[:, at : at + size] for x in (q, k, v, log_f, log_i))
        h, *memory = normalised_decay_attention(*cut, *memory)
        outputs.append(h)
    return torch.cat(outputs, 1), *memory


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("pushed", [0.0, 60.0])
def test_matrix_whole_chunks_steps_and_loop_are_one(dtype, pushed):
    given = memory_inputs(dtype=dtype, pushed=pushed)
    want = matrix_form(*(x.double() for x in given)).to(dtype)
    forms = [normalised_decay_attention(*given, *zeros(given[0], given[2])), chunked(*given), stepped(*given)]
    for h, c, n, m in forms:
        bound = TOLERANCE[dtype] * max(1.0, float(want.abs().max()))
        assert_close(h, want, rtol=0, atol=bound)
        assert_close(c * (m - forms[0][3]).exp()[..., None, None], forms[0][1], rtol=1e-4, atol=TOLERANCE[dtype])
        assert_close(n * (m - forms[0][3]).exp()[..., None], forms[0][2], rtol=1e-4, atol=TOLERANCE[dtype])
    if dtype == torch.float64 and not pushed:
        h, c, n = plain_loop(*given)
        assert_close(h, want, rtol=0, atol=1e-12)
        _, c_step, n_step, m = stepped(*given)
        assert_close(c_step * m.exp()[..., None, None], c)
        assert_close(n_step * m.exp()[..., None], n)


@pytest.mark.parametrize("pushed", [0.0, 60.0])
@pytest.mark.parametrize("length", [1, 2, 11])
def test_both_directions_in_linear_time_are_the_matrix(length, pushed):
    given = memory_inputs(length=length, pushed=pushed)
    want = matrix_form(*given, both=True)
    assert_close(_matrix_memory.both_ways(*given), want, rtol=0, atol=1e-9 * max(1.0, float(want.abs().max())))
    narrow = _matrix_memory.both_ways(*(x.float() for x in given))
    assert_close(narrow.double(), want, rtol=0, atol=1e-4 * max(1.0, float(want.abs().max())))


def test_both_directions_have_the_gradients_of_the_matrix():
    given = [x.requires_grad_() for x in memory_inputs(length=7)]
    weight = torch.randn(2, 7, 3, 5, dtype=torch.float64)
    got = torch.autograd.grad((_matrix_memory.both_ways(*given) * weight).sum(), given)
    want = torch.autograd.grad((matrix_form(*given, both=True) * weight).sum(), given)
    assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_both_directions_keep_slow_decays_over_a_long_row_in_float32():
    """Sums of 4096 logarithms must not be differences of large float32 numbers."""
    q, k, v, _, log_i = memory_inputs(length=4096)
    q, k = q.abs(), k.abs()  # weights of one sign: the divisor does not cancel, so that float32 can be held to 1e-4
    log_f = torch.full_like(log_i, -1e-3)
    want = _matrix_memory.both_ways(q, k, v, log_f, log_i)
    got = _matrix_memory.both_ways(*(x.float() for x in (q, k, v, log_f, log_i)))
    assert_close(got.double(), want, rtol=0, atol=1e-4)


def test_the_two_directions_share_one_normaliser():
    """Otherwise a position with nothing but its future would be divided twice."""
    given = memory_inputs(size=3.0, length=6)
    back = tuple(x.flip(1) for x in given)
    apart = matrix_form(*given) + matrix_form(*back).flip(1)
    assert float((_matrix_memory.both_ways(*given) - apart).abs().max()) > 0.1


def test_the_stabiliser_is_a_gauge():
    mixer, x_BTD = build(), torch.randn(2, 9, 8).double()
    _, state = mixer(x_BTD[:, :5], mixer.initial_state(2))
    want_BTD = mixer(x_BTD[:, 5:], state)[0]
    for shift in (-50.0, 5.0, 50.0):
        scale = math.exp(-shift)
        moved = replace(state, c_BHKV=state.c_BHKV * scale, n_BHK=state.n_BHK * scale, m_BH=state.m_BH + shift)
        assert_close(mixer(x_BTD[:, 5:], moved)[0], want_BTD, rtol=1e-9, atol=1e-9)
        assert_close(mixer(x_BTD[:, 5:6], moved)[0], want_BTD[:, :1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("biases", [(60.0, 60.0), (60.0, -60.0), (-60.0, 60.0), (-60.0, -60.0)], ids=str)
def test_extreme_gates_keep_everything_finite(causal, dtype, biases):
    mixer = build(dtype=dtype, causal=causal)
    with torch.no_grad():
        mixer.gates.bias[:4], mixer.gates.bias[4:] = biases
    x_BTD = torch.randn(2, 9, 8, dtype=dtype).requires_grad_()
    y_BTD = mixer(x_BTD)[0]
    slopes = torch.autograd.grad(y_BTD.square().sum(), [x_BTD, *mixer.parameters()])
    assert all(torch.isfinite(value).all() for value in (y_BTD, *slopes))
    if causal:
        steps_BTD = by_steps(mixer, x_BTD)[0]
        slopes = torch.autograd.grad(steps_BTD.square().sum(), [x_BTD, *mixer.parameters()])
        assert all(torch.isfinite(value).all() for value in (steps_BTD, *slopes))
        assert_close(steps_BTD, y_BTD, rtol=0, atol=10 * TOLERANCE[dtype] * float(y_BTD.detach().abs().max()))


def test_the_block_up_is_its_equations():
    mixer, x_BTD = build(heads=2, bias=True), torch.randn(2, 7, 8).double()
    u, z = mixer.into(x_BTD).chunk(2, -1)
    padded = torch.cat([u.new_zeros(2, 3, 16), u], 1)
    taps = [padded[:, at : at + 7] * mixer.conv_weight[:, at] for at in range(4)]
    s = silu(sum(taps) + mixer.conv_bias)
    q, k, v = (
        x @ torch.block_diag(*part.weight).T + part.bias
        for x, part in ((s, mixer.query), (s, mixer.key), (u, mixer.value))
    )
    gates = mixer.gates(torch.cat([q, k, v], -1))
    heads = [x.unflatten(-1, (2, 8)) for x in (q, k / 8**0.5, v)]
    h = matrix_form(*heads, logsigmoid(gates[..., 2:]), gates[..., :2])
    h = layer_norm(h, (8,), eps=1e-5).flatten(2) * mixer.norm_weight + mixer.norm_bias
    want_BTD = mixer.output((h + mixer.skip * s) * silu(z))
    assert_close(mixer(x_BTD)[0], want_BTD, rtol=1e-9, atol=1e-9)
    assert_close(by_steps(mixer, x_BTD)[0], want_BTD, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("forget", ["sigmoid", "exp"])
def test_the_block_plain_is_its_equations(forget, both):
    mixer, x_BTD = build(block="plain", heads=2, forget=forget, cap=2.0, causal=not both), torch.randn(2, 7, 8).double()
    q, k, v, z = mixer.into(x_BTD).split([4, 4, 8, 8], -1)
    i, f = (2 * torch.tanh(mixer.gates(x_BTD) / 2)).chunk(2, -1)
    q, k, v = (x.unflatten(-1, (2, -1)) for x in (q, k / 2**0.5, v))
    h = matrix_form(q, k, v, logsigmoid(f) if forget == "sigmoid" else f, i, both=both)
    h = layer_norm(h, (4,), eps=1e-6).flatten(2) * mixer.norm_weight
    assert_close(mixer(x_BTD)[0], mixer.output(h * z.sigmoid()), rtol=1e-9, atol=1e-9)


def test_rotary_turns_queries_and_keys_by_their_distance():
    """A prompt that was cut anywhere goes on at the right position, and a packed document counts anew."""
    mixer, x_BTD = build(block="plain", heads=2, key_factor=1.0, rotary=Rotary.Config()), torch.randn(1, 12, 8).double()
    y_BTD = mixer(x_BTD)[0]
    assert_close(by_steps(mixer, x_BTD)[0], y_BTD, rtol=1e-9, atol=1e-9)
    moved_BTD = mixer(x_BTD, layout=Layout(positions_BT=torch.arange(12)[None] + 100))[0]
    assert_close(moved_BTD, y_BTD, rtol=1e-9, atol=1e-9)
    still = replace(mixer.config, rotary=None).build(8).double()
    still.load_state_dict(mixer.state_dict())
    assert float((still(x_BTD)[0] - y_BTD).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("config", [c for c in MLSTM.grid() if c.causal], ids=str)
def test_a_packed_document_is_that_document_alone(config):
    mixer, x_BTD = MLSTM(8, config).double(), torch.randn(1, 20, 8).double()
    starts_BT = torch.zeros(1, 20, dtype=torch.bool)
    starts_BT[0, [0, 7, 8]] = True
    y_BTD, state = mixer(x_BTD, mixer.initial_state(1), layout=Layout(starts_BT=starts_BT))
    for begin, end in (0, 7), (7, 8), (8, 20):
        alone_BTD, after = mixer(x_BTD[:, begin:end], mixer.initial_state(1))
        assert_close(y_BTD[:, begin:end], alone_BTD, rtol=1e-9, atol=1e-9)
    for name, value in state.tensors().items():
        assert_close(value, after.tensors()[name], rtol=1e-9, atol=1e-9)


def test_the_whole_row_is_seen_without_causality_and_pads_are_not():
    mixer, x_BTD = build(causal=False), torch.randn(2, 9, 8).double().requires_grad_()
    lengths_B = torch.tensor([9, 6])
    y_BTD = mixer(x_BTD, layout=Layout(lengths_B=lengths_B))[0]
    (slope_BTD,) = torch.autograd.grad(y_BTD[1, 0].square().sum(), x_BTD)
    assert bool((slope_BTD[1, :6].abs().amax(1) > 0).all())
    assert float(slope_BTD[1, 6:].abs().max()) == 0
    assert_close(y_BTD[1:, :6], mixer(x_BTD[1:, :6])[0], rtol=1e-9, atol=1e-9)


def test_gates_start_at_their_biases_and_maps_narrow():
    torch.manual_seed(0)
    mixer = MLSTM(256, MLSTM.Config(heads=4))
    assert float(mixer.gates.weight.detach().abs().max()) == 0
    assert mixer.gates.bias[4:].tolist() == [3, 4, 5, 6]
    assert float(mixer.gates.bias[:4].detach().abs().max()) < 0.5
    for part in (mixer.into, mixer.query, mixer.key, mixer.value):
        assert float(part.weight.detach().std()) == pytest.approx((2 / (5 * 256)) ** 0.5, rel=0.05)
    assert float(mixer.output.weight.detach().std()) == pytest.approx(2 / 16, rel=0.05)
    grown = MLSTM(8, MLSTM.Config(forget="exp", input_bias=-10.0))
    assert_close(grown.gates.bias[4:], logsigmoid(torch.linspace(3, 6, 4)))
    assert float(grown.gates.bias[:4].detach().mean()) == pytest.approx(-10, abs=0.5)


def test_memory_and_gates_are_float32_under_autocast():
    mixer, x_BTD = build(dtype=torch.float32), torch.randn(2, 5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y_BTD, state = mixer(x_BTD, mixer.initial_state(2))
        _, state = mixer(x_BTD[:, :1], state)
    assert y_BTD.dtype == torch.bfloat16
    assert {value.dtype for name, value in state.tensors().items() if name != "length_B"} == {torch.float32}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"block": "down"}, "block"),
        ({"forget": "tanh"}, "forget"),
        ({"heads": 3}, "3 heads"),
        ({"heads": 0}, "0 heads"),
        ({"block": "plain", "key_factor": 0.1}, "keys"),
        ({"projection": 5}, "projection = 5"),
        ({"expand": 0.0}, "expand"),
        ({"conv": 0}, "conv"),
        ({"projection": 0}, "projection"),
        ({"key_factor": -1.0}, "key_factor"),
        ({"cap": 0.0}, "cap"),
    ],
    ids=str,
)
def test_impossible_options_are_refused(options, word):
    with pytest.raises(ConfigError, match=word):
        MLSTM(8, MLSTM.Config(**options))


def layer_of_transformers(mixer):
    """Their layer with a mixer's weights; its divisor without the epsilon that ours leaves out."""
    theirs = pytest.importorskip("transformers.models.xlstm.modeling_xlstm")
    if theirs.external_xlstm:
        pytest.skip("with the package xlstm installed transformers has no layer of its own")
    options, dtype = mixer.config, mixer.norm_weight.dtype
    name = str(dtype).removeprefix("torch.")
    config = theirs.xLSTMConfig(
        hidden_size=mixer.width, num_heads=options.heads, num_hidden_layers=1, qk_dim_factor=options.key_factor,
        use_bias=options.bias, gate_soft_cap=options.cap, chunk_size=8, eps=0.0,
        norm_reduction_force_float32=False, vocab_size=4, use_cache=False,
    )  # fmt: skip
    for field in ("autocast_kernel_dtype", "inference_state_dtype"):
        object.__setattr__(config, field, name)  # its own check knows float32 and narrower alone
    layer, keys, values = theirs.xLSTMLayer(config).to(dtype), mixer.keys, mixer.values
    parts = {"q": keys, "k": keys, "v": values, "ogate_preact": values}
    with torch.no_grad():
        for part, weight in zip(parts, mixer.into.weight.split(list(parts.values())), strict=True):
            getattr(layer, part).weight.copy_(weight)
        if options.bias:
            for part, bias in zip(parts, mixer.into.bias.split(list(parts.values())), strict=True):
                getattr(layer, part).bias.copy_(bias)
            layer.multihead_norm.bias.copy_(mixer.norm_bias)
        for part, at in (("igate_preact", slice(options.heads)), ("fgate_preact", slice(options.heads, None))):
            getattr(layer, part).weight.copy_(mixer.gates.weight[at])
            getattr(layer, part).bias.copy_(mixer.gates.bias[at])
        layer.multihead_norm.weight.copy_(mixer.norm_weight)
        layer.out_proj.load_state_dict(mixer.output.state_dict())
    return layer


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("options", [{}, {"bias": True, "key_factor": 1.0, "cap": 4.0}], ids=str)
def test_equals_the_layer_of_transformers(dtype, options):
    """In chunks of 8 and a rest, then step by step; states too (theirs scales q by K^-1/2, ours k)."""
    mixer = build(16, dtype, block="plain", heads=2, **options)
    layer, x_BTD = layer_of_transformers(mixer), torch.randn(3, 21, 16, dtype=dtype)
    bound = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    scale = (mixer.keys // 2) ** 0.5
    with torch.no_grad():
        want_BTD, (c, n, m) = layer(x_BTD)
        y_BTD, state = mixer(x_BTD, mixer.initial_state(3))
        assert_close(y_BTD, want_BTD, **bound)
        assert_close(mixer(x_BTD)[0], want_BTD, **bound)
        shift = (state.m_BH - m[..., 0]).exp()
        assert_close(state.c_BHKV * shift[..., None, None] * scale, c, **bound)
        assert_close(state.n_BHK * shift[..., None] * scale, n, **bound)
        for x_B1D in torch.randn(3, 4, 16, dtype=dtype).split(1, 1):
            want_B1D, (c, n, m) = layer(x_B1D, (c, n, m))
            y_B1D, state = mixer(x_B1D, state)
            assert_close(y_B1D, want_B1D, **bound)


def layer_of_xlstm(mixer, length):
    """The layer of the authors' package with a mixer's weights; its divisor without the epsilon."""
    package, backends = pytest.importorskip("xlstm"), pytest.importorskip("xlstm.blocks.mlstm.backends")
    options = mixer.config
    config = package.mLSTMLayerConfig(
        embedding_dim=mixer.width, num_heads=options.heads, conv1d_kernel_size=options.conv, bias=options.bias,
        qkv_proj_blocksize=options.projection, proj_factor=options.expand, context_length=length,
    )  # fmt: skip
    layer, H = package.mLSTMLayer(config).to(mixer.norm_weight.dtype), options.heads
    cell = layer.mlstm_cell
    cell.backend_fn = partial(backends.parallel_stabilized_simple, eps=0.0)
    cell.backend_fn_step = partial(backends.recurrent_step_stabilized_simple, eps=0.0)
    with torch.no_grad():
        layer.proj_up.load_state_dict(mixer.into.state_dict())
        layer.proj_down.load_state_dict(mixer.output.state_dict())
        for theirs, ours in ((layer.q_proj, mixer.query), (layer.k_proj, mixer.key), (layer.v_proj, mixer.value)):
            theirs.load_state_dict(ours.state_dict())
        layer.conv1d.conv.weight.copy_(mixer.conv_weight[:, None])
        layer.conv1d.conv.bias.copy_(mixer.conv_bias)
        layer.learnable_skip.copy_(mixer.skip)
        for gate, at in ((cell.igate, slice(H)), (cell.fgate, slice(H, None))):
            gate.weight.copy_(mixer.gates.weight[at])
            gate.bias.copy_(mixer.gates.bias[at])
        cell.outnorm.weight.copy_(mixer.norm_weight - 1)  # theirs adds one
    return layer


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_equals_the_layer_of_the_authors(dtype):
    """Parallel, with gradients, and step by step; their inner width is a multiple of 64, hence 32 channels."""
    mixer = build(32, dtype)
    layer, x_BTD = layer_of_xlstm(mixer, 13), torch.randn(2, 13, 32, dtype=dtype).requires_grad_()
    bound = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * 10}
    y_BTD, want_BTD = mixer(x_BTD)[0], layer(x_BTD)
    assert_close(y_BTD, want_BTD, **bound)
    weight_BTD = torch.randn_like(x_BTD)
    ours = torch.autograd.grad((y_BTD * weight_BTD).sum(), [x_BTD, mixer.conv_weight, mixer.query.weight, mixer.skip])
    into = [x_BTD, layer.conv1d.conv.weight, layer.q_proj.weight, layer.learnable_skip]
    theirs = torch.autograd.grad((want_BTD * weight_BTD).sum(), into)
    for got, want in zip(ours, theirs, strict=True):
        assert_close(got, want.view(got.shape), rtol=0, atol=10 * TOLERANCE[dtype] * float(want.abs().max()))
    with torch.no_grad():
        state, kept = mixer.initial_state(2), {}
        for x_B1D in x_BTD.split(1, 1):
            want_B1D, kept = layer.step(x_B1D, **kept)
            y_B1D, state = mixer(x_B1D, state)
            assert_close(y_B1D, want_B1D, **bound)
