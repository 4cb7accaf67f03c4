"""Speculation on the state of every mixer that steps: draft, verify in one call, go back, go on.

A round drafts a few inputs step by step, checks all of them with one call that records its states, and goes back to
what each row accepts: other numbers for other rows, none and all among them. What a draft brings beyond is noise.
"""

import pytest
import torch
from torch.testing import assert_close

from seqloom.core.layout import Layout
from seqloom.testing.mixers import options

WIDTH, ROWS, LENGTH, DRAFT = 8, 4, 14, 4
BOUND = {torch.float64: 1e-9, torch.float32: 1e-4}
STEPPING = [(label, config) for label, config in options() if config.traits().rollback in ("recorded", "free")]
DEFAULT = [pytest.param(config, id=label) for label, config in STEPPING if "-" not in label]
OTHER = [pytest.param(config, id=label, marks=pytest.mark.slow) for label, config in STEPPING if "-" in label]


def build(config, dtype):
    torch.manual_seed(0)
    return config.build(WIDTH).to(dtype).eval()


def inputs(dtype, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, LENGTH, WIDTH, generator=rng, dtype=torch.float64).to(dtype)


def same(got, want):
    largest = max(float(want.abs().max()), 1e-3)
    assert_close(got, want, rtol=0, atol=BOUND[want.dtype] * largest)


def one(row):
    return torch.tensor([row])


def alone(mixer, x_BTD, row, length):
    """State of one row after its first inputs, in one call."""
    return mixer(x_BTD[row : row + 1, :length], mixer.initial_state(1, capacity=LENGTH + DRAFT))[1]


def probe(mixer, state):
    """The outputs that a state leads to: what it means, whatever its buffers hold."""
    return mixer(inputs(state_dtype(mixer), seed=9)[: state.batch, :3], state.fork())[0]


def state_dtype(mixer):
    return next(mixer.parameters()).dtype


def drafted(x_BTD, done_B, accept_B):
    """The next inputs of every row, noise from the first one that will not be accepted."""
    column_BK = (done_B[:, None] + torch.arange(DRAFT)).clamp_max(LENGTH - 1)
    draft_BKD = x_BTD[torch.arange(ROWS)[:, None], column_BK]
    wrong_BK = torch.arange(DRAFT) >= accept_B[:, None]
    return torch.where(wrong_BK[..., None], draft_BKD + 3, draft_BKD)


def draft_outputs(mixer, draft_BKD, state):
    pieces = []
    for x_B1D in draft_BKD.split(1, 1):
        y_B1D, state = mixer(x_B1D, state)
        pieces.append(y_B1D)
    return torch.cat(pieces, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("config", DEFAULT + OTHER)
@torch.no_grad()
def test_speculation_equals_the_run_without_it(config, dtype):
    mixer, x_BTD = build(config, dtype), inputs(dtype)
    state, done_B = mixer.initial_state(ROWS, capacity=LENGTH + DRAFT), torch.zeros(ROWS, dtype=torch.long)
    got_BTD = torch.zeros_like(x_BTD)
    for number in range(6):
        accept_B = ((torch.arange(ROWS) + number) % (DRAFT + 1)).minimum(LENGTH - done_B)
        draft_BKD = drafted(x_BTD, done_B, accept_B)
        guess_BKD = draft_outputs(mixer, draft_BKD, state.fork())
        y_BKD, after = mixer(draft_BKD, state.fork(), layout=Layout(states_at=tuple(range(DRAFT + 1))))
        same(y_BKD, guess_BKD)
        for row in range(ROWS):
            begin, count = int(done_B[row]), int(accept_B[row])
            got_BTD[row, begin : begin + count] = y_BKD[row, :count]
        state = after.rollback(DRAFT - accept_B)
        done_B = done_B + accept_B
        assert state.length_B.tolist() == done_B.tolist()
    assert len(set(done_B.tolist())) > 1
    want_BTD = mixer(x_BTD)[0]
    for row, done in enumerate(done_B.tolist()):
        same(got_BTD[row, :done], want_BTD[row, :done])
        same(probe(mixer, state.select(one(row))), probe(mixer, alone(mixer, x_BTD, row, done)))


@pytest.mark.parametrize("config", DEFAULT + OTHER)
@torch.no_grad()
def test_beams_fork_speculate_and_are_dropped(config):
    """Hypotheses of one prompt go different ways; the best is repeated, one is dropped, and both go back."""
    mixer, x_BTD = build(config, torch.float64), inputs(torch.float64)
    prompt_1TD = x_BTD[:1, :5]
    start = mixer(prompt_1TD, mixer.initial_state(1, capacity=LENGTH + DRAFT))[1]
    beams_BTD = x_BTD[:3, 5:9]
    after = mixer(beams_BTD, start.select(torch.tensor([0, 0, 0])), layout=Layout(states_at=(1, 2, 3)))[1]
    kept = after.fork().select(torch.tensor([2, 2, 0])).rollback(torch.tensor([3, 0, 1]))
    for at, (beam, count) in enumerate(((2, 1), (2, 4), (0, 3))):
        path_1TD = torch.cat([prompt_1TD, beams_BTD[beam : beam + 1, :count]], 1)
        want = mixer(path_1TD, mixer.initial_state(1, capacity=LENGTH + DRAFT))[1]
        got = kept.select(one(at))
        assert got.length_B.tolist() == want.length_B.tolist() == [5 + count]
        same(probe(mixer, got), probe(mixer, want))


@pytest.mark.parametrize("config", DEFAULT)
def test_what_goes_back_has_the_gradient_of_what_never_went(config):
    """A rejected draft leaves nothing in the gradient either."""
    mixer, x_BTD = build(config, torch.float64), inputs(torch.float64)
    x_BTD.requires_grad_()
    start = mixer.initial_state(ROWS, capacity=LENGTH + DRAFT)
    after = mixer(x_BTD[:, :6], start, layout=Layout(states_at=(2, 4)))[1]
    back = after.rollback(torch.tensor([4, 2, 0, 4]))
    (slope_BTD,) = torch.autograd.grad(mixer(x_BTD[:, 10:12], back)[0].square().sum(), x_BTD)
    for row, count in enumerate((2, 4, 6, 2)):
        leaf_1TD = x_BTD[row : row + 1].detach().requires_grad_()
        state = mixer(leaf_1TD[:, :count], mixer.initial_state(1, capacity=LENGTH + DRAFT))[1]
        loss = mixer(leaf_1TD[:, 10:12], state)[0].square().sum()
        (want_1TD,) = torch.autograd.grad(loss, leaf_1TD)
        same(slope_BTD[row], want_1TD[0])
        assert float(slope_BTD[row, count:10].abs().max()) == 0
