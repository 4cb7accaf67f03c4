"""Models on the device: a training step, a short training, and generation, each beside the CPU."""

import numpy as np
import pytest
import torch

from seqloom.core.batch import Batch, Example
from seqloom.core.sizes import Sizes
from seqloom.decoding._hypotheses import prompts
from seqloom.decoding.greedy import Greedy
from seqloom.decoding.sample import Sample
from seqloom.mixers import names
from seqloom.mixers._base import Mixer
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.objectives.next_token import NextToken
from seqloom.testing._subject import BOUND
from seqloom.testing.mixers import options

pytestmark = pytest.mark.gpu

VOCABULARY = 20
PROMPTS = [[7, 8, 9], [], [10], [9, 9, 9, 9, 9]]


def able(name: str) -> bool:
    traits = dict(options(name))[name].traits()
    return traits.causal in ("exact", "fft") and traits.step != "none" and not traits.context


CAUSAL = [name for name in names() if able(name)]


def model(name: str, dtype: torch.dtype, device: str) -> CausalLM:
    torch.manual_seed(1)
    mixers: tuple[Mixer.Config, ...] = pattern(name)
    config = CausalLM.Config(backbone=Backbone.Config(width=16, layers=2, mixers=mixers))
    return config.build(Sizes(vocabulary=VOCABULARY)).float().to(dtype).to(device)


def batch(rows: int = 6, most: int = 40) -> Batch:
    rng = np.random.default_rng(0)
    lines = [rng.integers(6, VOCABULARY, size=rng.integers(1, most)).astype(np.int32) for _ in range(rows)]
    return NextToken().batch([Example(index=i, tokens=line) for i, line in enumerate(lines)])


def learn(lm: CausalLM, data: Batch, steps: int, half: bool = False) -> list[float]:
    optimiser, losses = torch.optim.SGD(lm.parameters(), lr=0.3), []
    device = next(lm.parameters()).device.type
    for _ in range(steps):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            term = NextToken().loss(lm.run(data), data)["nll"]
            loss = term.sum / term.count
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", CAUSAL)
def test_three_training_steps_equal_those_of_the_cpu(name, device):
    data = batch()
    got = learn(model(name, torch.float32, device), data.to(device), 3)
    want = learn(model(name, torch.float64, "cpu"), data, 3)
    assert got == pytest.approx(want, rel=BOUND[torch.float32])


@pytest.mark.parametrize("name", CAUSAL)
def test_training_in_half_precision_lowers_the_loss(name, device):
    lm, data = model(name, torch.float32, device), batch().to(device)
    losses = learn(lm, data, 12, half=True)
    assert losses[-1] < 0.98 * losses[0], f"{name}: losses {losses}"


@pytest.mark.parametrize("name", CAUSAL)
def test_greedy_writes_what_whole_passes_say(name, device):
    """Every written token is one of the whole pass's most probable, up to what float32 can tell apart."""
    lm = model(name, torch.float32, device).eval()
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.ndim > 1:
                parameter.mul_(2)
        done = Greedy().decode(lm, prompts(PROMPTS).to(device), limit=10)
        for row, prompt in enumerate(PROMPTS):
            written = done.tokens_of(row)
            tokens = torch.tensor([[1, *prompt, *written]], device=device)
            logits_TV = lm(tokens)[0].logits[0, len(prompt) : -1].float()
            logits_TV[:, [0, 1, 3, 4, 5]] = -torch.inf
            chosen_T = logits_TV.gather(1, tokens[0, 1 + len(prompt) :, None])[:, 0]
            scale = float(logits_TV[logits_TV.isfinite()].abs().max())
            lost = float((logits_TV.amax(1) - chosen_T).max())
            assert lost <= 10 * BOUND[torch.float32] * scale, f"{name}, row {row}: {lost:.3g} below the best"


def test_samples_follow_the_seed_on_the_device(device):
    lm = model(CAUSAL[0], torch.float32, device).eval()
    drawn = [Sample().decode(lm, prompts(PROMPTS).to(device), limit=8, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0].tokens_BL.device.type == device
    assert torch.equal(drawn[0].tokens_BL, drawn[1].tokens_BL)
    assert [drawn[0].tokens_of(i) for i in range(4)] != [drawn[2].tokens_of(i) for i in range(4)]
