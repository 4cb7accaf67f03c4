from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.core.layout import Layout, part
from seqloom.kernels._kernel import use_backend
from seqloom.layers.rotary import Rotary
from seqloom.mixers.attention.attention import Attention
from seqloom.testing.mixers import check_mixer, options

WIDTH = 16


def build(dtype=torch.float64, **chosen) -> Attention:
    torch.manual_seed(0)
    return Attention(WIDTH, Attention.Config(**chosen)).to(dtype)


def inputs(B: int, T: int, dtype=torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(B, T, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def by_hand(mixer: Attention, x_BTD: Tensor, seen_TT: Tensor) -> Tensor:
    config, K = mixer.config, mixer.head_width
    G = config.kv_heads or config.heads
    q, k, v = mixer.qkv(x_BTD).split([config.heads * K, G * K, G * K], -1)
    q, k, v = (x.unflatten(2, (-1, K)).transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(config.heads // G, 1) for x in (k, v))
    return mixer.out(sdpa(q, k, v, attn_mask=seen_TT).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("backend", ["reference", "torch_cpu"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("kv_heads", "window", "bias"), [(0, 0, False), (2, 0, True), (1, 3, False)])
def test_equals_torch_with_gradients(backend, causal, kv_heads, window, bias):
    mixer = build(kv_heads=kv_heads, window=window, causal=causal, rotary=None, qkv_bias=bias, out_bias=bias)
    x_BTD = inputs(2, 9).requires_grad_()
    t_T = torch.arange(9)
    behind_TT = t_T[:, None] - t_T
    seen_TT = (behind_TT >= 0) if causal else torch.ones(9, 9, dtype=torch.bool)
    if window:
        seen_TT = seen_TT & (behind_TT.abs() < window)
    into = [x_BTD, *mixer.parameters()]
    with use_backend(backend):
        y_BTD = mixer(x_BTD)[0]
        got = torch.autograd.grad(y_BTD.sin().sum(), into)
    want_BTD = by_hand(mixer, x_BTD, seen_TT)
    assert_close(y_BTD, want_BTD)
    assert_close(got, torch.autograd.grad(want_BTD.sin().sum(), into))


@pytest.mark.parity
def test_equals_llama_attention_of_transformers():
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    shape = {"hidden_size": WIDTH, "num_attention_heads": 4, "num_key_value_heads": 2, "attention_bias": True}
    config = llama.LlamaConfig(**shape, rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    theirs = llama.LlamaAttention(config, 0).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    ours = build(torch.float32, kv_heads=2, rotary=Rotary.Config(theta=500.0), qkv_bias=True, out_bias=True)
    with torch.no_grad():
        for name in ("weight", "bias"):
            parts = [getattr(getattr(theirs, f"{letter}_proj"), name) for letter in "qkv"]
            getattr(ours.qkv, name).copy_(torch.cat(parts))
            getattr(ours.out, name).copy_(getattr(theirs.o_proj, name))
        x_BTD = inputs(2, 11, torch.float32)
        turn = llama.LlamaRotaryEmbedding(config)(x_BTD, torch.arange(11)[None])
        hidden_TT = torch.full((11, 11), -torch.inf).triu(1)[None, None]
        assert_close(ours(x_BTD)[0], theirs(x_BTD, turn, hidden_TT)[0], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("chosen", [{}, {"kv_heads": 2, "window": 3}, {"kv_heads": 1, "window": 20, "qk_norm": True}])
@pytest.mark.parametrize("side", ["right", "left"])
def test_steps_from_even_and_ragged_prompts_equal_the_whole(chosen, side):
    mixer, x_BTD = build(**chosen), inputs(3, 12)
    _, state = mixer(x_BTD[:, :5], mixer.initial_state(3, capacity=12))
    lengths = [5, 2, 4]
    columns = [torch.arange(5 - n, 5) if side == "left" else torch.arange(n) for n in lengths]
    prompt_BTD = torch.full((3, 5, WIDTH), torch.nan, dtype=torch.float64)
    for row, (n, column) in enumerate(zip(lengths, columns, strict=True)):
        prompt_BTD[row, column] = x_BTD[row, :n]
    layout = Layout(lengths_B=torch.tensor(lengths), side=side)
    _, ragged = mixer(prompt_BTD, mixer.initial_state(3), layout=layout)
    assert (state.even, ragged.even) == (True, False)
    whole_BTD = mixer(x_BTD)[0]
    for t in range(5, 12):
        y_BTD, state = mixer(x_BTD[:, t : t + 1], state)
        assert_close(y_BTD, whole_BTD[:, t : t + 1])
    for t in range(6):
        y_BTD, ragged = mixer(torch.stack([x_BTD[b, n + t] for b, n in enumerate(lengths)])[:, None], ragged)
        assert_close(y_BTD[:, 0], torch.stack([whole_BTD[b, n + t] for b, n in enumerate(lengths)]))
    assert ragged.length_B.tolist() == [11, 8, 10]


@torch.no_grad()
def test_cache_is_written_in_place_up_to_its_capacity_and_grows_beyond():
    mixer, x_BTD = build(), inputs(2, 40)
    state = mixer.initial_state(2, capacity=8)
    home, pieces = state.k_BGLK.data_ptr(), []
    for t in range(40):
        y_BTD, state = mixer(x_BTD[:, t : t + 1], state)
        pieces.append(y_BTD)
        assert (state.k_BGLK.data_ptr() == home) == (t < 8)
    assert state.k_BGLK.shape[2] == 64
    assert_close(torch.cat(pieces, 1), mixer(x_BTD)[0])


@torch.no_grad()
def test_copies_hold_the_used_slots_alone():
    mixer, x_BTD = build(), inputs(2, 3)
    state = mixer(x_BTD, mixer.initial_state(2, capacity=10))[1]
    state.k_BGLK[:, :, 3:] = 7.0
    for copy in (state.fork(), state.select(torch.tensor([1, 0]))):
        assert copy.k_BGLK.shape == state.k_BGLK.shape
        assert (copy.k_BGLK[:, :, 3:] == 0).all()
    assert_close(state.select(torch.tensor([1, 1])).v_BGLK[0, :, :3], state.v_BGLK[1, :, :3])


@torch.no_grad()
@pytest.mark.parametrize("ragged", [False, True])
def test_keep_continues_along_the_accepted_path_of_a_tree(ragged):
    mixer, x_BTD, tree_BTD = build(kv_heads=2), inputs(2, 5), inputs(2, 4, seed=2)
    lengths_B = torch.tensor([5, 3]) if ragged else None
    _, state = mixer(x_BTD, mixer.initial_state(2, capacity=16), layout=Layout(lengths_B=lengths_B))
    before = state.fork()
    parents_BT = torch.tensor([[-1, 0, 0, 2], [-1, -1, 1, 2]])
    _, state = mixer(tree_BTD, state, layout=Layout(parents_BT=parents_BT))
    state = state.keep(torch.tensor([[0, 2, 3], [1, 2, -1]]), 4)
    assert state.length_B.tolist() == ([8, 5] if ragged else [8, 7])
    for row, path in enumerate(([0, 2, 3], [1, 2])):
        one = torch.tensor([row])
        _, alone = mixer(tree_BTD[one][:, path], before.select(one))
        rest_BTD = inputs(1, 3, seed=3)
        assert_close(mixer(rest_BTD, state.select(one))[0], mixer(rest_BTD, alone)[0])
    nothing = before.fork().keep(torch.empty(2, 0, dtype=torch.long), 2)
    assert nothing.length_B.tolist() == (before.length_B - 2).tolist()


@torch.no_grad()
def test_parts_stay_apart_over_several_calls():
    mixer, x_BTD = build(), inputs(1, 8)
    parts_BT = torch.tensor([[0, 0, 1, 1, 2, 2, 0, 0]])
    positions_BT = torch.tensor([[0, 1, 2, 3, 2, 3, 4, 5]])
    whole_BTD = mixer(x_BTD, layout=Layout(parts_BT=parts_BT, positions_BT=positions_BT))[0]
    swapped = [0, 1, 4, 5, 2, 3, 6, 7]
    layout = Layout(parts_BT=parts_BT[:, swapped], positions_BT=positions_BT)
    assert_close(mixer(x_BTD[:, swapped], layout=layout)[0], whole_BTD[:, swapped], rtol=1e-12, atol=1e-12)
    for cuts in ((0, 3, 4, 8), (0, 5, 6, 7, 8)):
        state, pieces = mixer.initial_state(1), []
        for start, stop in pairwise(cuts):
            layout = Layout(parts_BT=parts_BT, positions_BT=positions_BT).cut(start, stop)
            if start >= 6:
                layout = replace(layout, parts_BT=None)
            y_BTD, state = mixer(x_BTD[:, start:stop], state, layout=layout)
            pieces.append(y_BTD)
        assert_close(torch.cat(pieces, 1), whole_BTD)


@torch.no_grad()
def test_a_packed_row_keeps_its_last_segment_alone():
    mixer, x_BTD = build(window=4), inputs(2, 9)
    starts_BT = torch.zeros(2, 9, dtype=torch.bool)
    starts_BT[0, [2, 6]] = True
    _, state = mixer(x_BTD, mixer.initial_state(2), layout=Layout(starts_BT=starts_BT))
    assert state.length_B.tolist() == [3, 9]
    assert state.filled == 9
    _, state = mixer(x_BTD[:, :2], state, layout=Layout(starts_BT=torch.tensor([[True, False]] * 2)))
    assert (state.filled, state.even) == (2, True)
    rest_BTD = inputs(2, 3, seed=2)
    assert_close(mixer(rest_BTD, state)[0], mixer(torch.cat([x_BTD[:, :2], rest_BTD], 1))[0][:, 2:])


def test_going_back_further_than_the_row_is_refused():
    mixer = build()
    state = mixer(inputs(2, 3), mixer.initial_state(2), layout=Layout(lengths_B=torch.tensor([3, 1])))[1]
    assert state.rollback(torch.tensor([3, 1])).length_B.tolist() == [0, 0]
    with pytest.raises(ConfigError, match="cannot go back"):
        state.rollback(torch.tensor([0, 2]))


class Ring:
    """Two processes, one after the other: the first leaves its keys for the second."""

    rank, size = 0, 2

    def __init__(self) -> None:
        self.held: list[tuple[Tensor, Tensor]] = []

    def attend(self, block, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        offset = sum(k.shape[2] for k, _ in self.held)
        self.held.append((k, v))
        o = l = None
        for k, v in self.held:
            o2, l2 = block(q, k, v, offset)
            top = l2 if l is None else torch.logaddexp(l, l2)
            o = o2 if o is None else o * (l - top).exp()[..., None] + o2 * (l2 - top).exp()[..., None]
            l, offset = top, offset - k.shape[2]
        return o


@pytest.mark.parametrize("window", [0, 6])
def test_keys_of_two_processes_merge_to_the_whole(window):
    mixer, x_BTD, ring = build(window=window, kv_heads=2), inputs(2, 9).requires_grad_(), Ring()
    with pytest.raises(ConfigError, match="positions_BT"):
        mixer(x_BTD, layout=Layout(exchange=ring))
    pieces = []
    for start, stop in ((0, 4), (4, 9)):
        positions_BT = torch.arange(start, stop).expand(2, -1)
        pieces.append(mixer(x_BTD[:, start:stop], layout=Layout(exchange=ring, positions_BT=positions_BT))[0])
    into = [x_BTD, *mixer.parameters()]
    want_BTD = mixer(x_BTD)[0]
    assert_close(torch.cat(pieces, 1), want_BTD)
    got = torch.autograd.grad(torch.cat(pieces, 1).sin().sum(), into)
    assert_close(got, torch.autograd.grad(want_BTD.sin().sum(), into))
    for wrong in ({"starts_BT": torch.zeros(2, 9, dtype=torch.bool)}, {"parents_BT": torch.arange(9).expand(2, 9) - 1}):
        if window == 0:
            with pytest.raises(ConfigError, match=next(iter(wrong))):
                mixer(x_BTD, layout=Layout(exchange=ring, **wrong))
    with pytest.raises(ConfigError, match="a state"):
        mixer(x_BTD, mixer.initial_state(2), layout=Layout(exchange=ring))


@torch.no_grad()
def test_the_cache_takes_the_dtype_of_autocast():
    mixer, x_BTD = build(torch.float32), inputs(2, 6, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y_BTD, state = mixer(x_BTD[:, :5], mixer.initial_state(2, capacity=6))
        z_BTD, state = mixer(x_BTD[:, 5:], state)
    assert state.k_BGLK.dtype == torch.bfloat16
    assert_close(torch.cat([y_BTD, z_BTD], 1).float(), mixer(x_BTD)[0], rtol=2e-2, atol=2e-2)
    again_BTD, _ = mixer(x_BTD[:, 5:], state.rollback(torch.ones(2, dtype=torch.long)))
    assert_close(again_BTD, mixer(x_BTD)[0][:, 5:], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [({"heads": 3}, "divide"), ({"kv_heads": 3}, "kv_heads"), ({"window": -1}, "window"), ({"heads": 16}, "pairs")],
)
def test_bad_options_are_refused(chosen, words):
    with pytest.raises(ConfigError, match=words):
        build(**chosen)


def test_a_window_excludes_trees_and_a_packed_tree_is_refused():
    assert Attention.Config().traits().tree
    assert not Attention.Config(window=3).traits().tree
    layout = Layout(parents_BT=torch.tensor([[-1, 0]]), starts_BT=torch.tensor([[True, False]]))
    with pytest.raises(ConfigError, match="unpack"):
        build()(inputs(1, 2), layout=layout)


def test_contract_at_the_default_options():
    assert set(check_mixer(Attention.Config()).values()) == {"holds"}


@pytest.mark.slow
@pytest.mark.parametrize("config", [config for _, config in options("attention")], ids=str)
def test_contract(config):
    check_mixer(config, full=True)


def test_a_later_set_sees_every_part_of_an_earlier_one():
    mixer = build(rotary=None)
    x_BTD = inputs(1, 7)
    parts_BT = torch.tensor([[part(0, 1), part(0, 2), 0, part(1, 1), part(1, 1), part(1, 2), 0]])
    got_BTD = mixer(x_BTD, layout=Layout(parts_BT=parts_BT))[0]
    seen_TT = torch.ones(7, 7, dtype=torch.bool).tril()
    for a, b in (1, 0), (5, 3), (5, 4):
        seen_TT[a, b] = False
    assert_close(got_BTD, by_hand(mixer, x_BTD, seen_TT))


def test_head_width_is_apart_from_the_width():
    mixer = Attention(8, Attention.Config(heads=2, head_width=6))
    assert mixer.qkv.weight.shape == (3 * 2 * 6, 8)
    assert mixer.out.weight.shape == (8, 2 * 6)
    assert mixer(torch.randn(1, 3, 8), mixer.initial_state(1))[1].k_BGLK.shape[3] == 6


def test_normalised_queries_and_keys_do_not_feel_the_scale_of_their_weights():
    mixer = Attention(8, Attention.Config(heads=2, qk_norm=True)).double()
    x = torch.randn(1, 4, 8, dtype=torch.float64)
    before = mixer(x)[0]
    with torch.no_grad():
        mixer.qkv.weight[:16] *= 100.0
    torch.testing.assert_close(mixer(x)[0], before, rtol=1e-3, atol=1e-3)
