"""Sampled paths: of a process whose distribution is known, and of networks beside themselves one row at a time."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from seqloom.app import _paths
from seqloom.app._engines import Blueprint
from seqloom.app._paths import Wanted, sample_paths
from seqloom.app._values import CountedValues, NetworkOfValues
from seqloom.core.layout import PLAIN
from seqloom.core.outputs import Outputs
from seqloom.core.sizes import Sizes
from seqloom.core.state import State
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.layers.gaussian import Gaussian
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_values import CausalValues
from seqloom.models.classical.random_walk import RandomWalk

stats = pytest.importorskip("scipy.stats")

SIZES = Sizes(channels=2, values=1)
DECAY, NOISE = 0.8, 0.5


def examples(*lengths, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    rows = [np.ones((n, channels)) for n in lengths]
    for row in rows:
        row[:, 0] = rng.normal(size=len(row))
    return Examples(None, values=Ragged.of(rows, np.float32), closes=[False] * len(rows))


@dataclass(frozen=True, kw_only=True)
class Seen(State):
    """How often it was called does not matter to this process."""


class Autoregression:
    """y ~ N(0.8 y, 0.5) as a network would say it."""

    sizes, device, head = SIZES, "cpu", Gaussian(1, 1)

    def initial_state(self, batch, *, capacity=None):
        return Seen(length_B=torch.zeros(batch, dtype=torch.long))

    def __call__(self, tokens, state=None, *, layout=PLAIN, values_BTC: Tensor):
        mean_BT1 = DECAY * values_BTC[..., :1]
        scale = torch.full_like(mean_BT1, np.log(NOISE))
        return Outputs({"distribution": torch.stack([mean_BT1, scale], -1)}), state


def test_the_quantiles_of_an_autoregression_are_those_of_the_closed_form():
    given = examples(5, 9)
    own = sample_paths(Autoregression(), given, Wanted(steps=8, count=4000), window=0)
    assert own.shape == (2, 4000, 8, 1)
    for row, last in enumerate((given[0].values[-1, 0], given[1].values[-1, 0])):
        for h in (1, 3, 8):
            spread = NOISE * np.sqrt((1 - DECAY ** (2 * h)) / (1 - DECAY**2))
            want = stats.norm(DECAY**h * last, spread)
            found = np.quantile(own[row, :, h - 1, 0], [0.1, 0.5, 0.9])
            np.testing.assert_allclose(found, want.ppf([0.1, 0.5, 0.9]), atol=4 * spread / np.sqrt(4000) * 1.8)
            assert stats.kstest(own[row, :, h - 1, 0], want.cdf).pvalue > 1e-3


def network(mixers, window=0):
    torch.manual_seed(0)
    config = CausalValues.Config(backbone=Backbone.Config(width=16, layers=2, mixers=pattern(mixers)))
    model = config.build(SIZES)
    torch.nn.init.normal_(model.head.map.weight, std=0.2)
    return NetworkOfValues(Blueprint(model=config, sizes=SIZES, window=window), model)


@pytest.mark.parametrize("mixers", ["gru", "attention", "s4d"])
def test_a_path_depends_on_its_row_alone(mixers, monkeypatch):
    engine, given = network(mixers), examples(6, 1, 0, 11)
    whole = engine.paths(given, 4, 3, seed=5)
    np.testing.assert_array_equal(whole, engine.paths(given, 4, 3, seed=5))
    assert not np.array_equal(whole, engine.paths(given, 4, 3, seed=6))
    assert not np.array_equal(whole[:, 0], whole[:, 1])
    for row in range(4):
        wanted = Wanted(steps=4, count=3, seed=5, first=row)
        alone = sample_paths(engine.model, given[row : row + 1], wanted, window=0)
        np.testing.assert_allclose(alone[0], whole[row], atol=2e-5)
    monkeypatch.setattr(_paths, "COLUMNS", 16)  # a path or two at once
    np.testing.assert_allclose(engine.paths(given, 4, 3, seed=5), whole, atol=2e-5)


@pytest.mark.parametrize("mixers", ["gru", "attention"])
def test_the_middle_path_is_that_of_one_prediction_after_another(mixers):
    engine, given = network(mixers), examples(7, 3)
    middle = engine.write(given, 3, temperature=0.0, seed=1)
    rows = [example.values for example in given]
    for step in range(3):
        own = Examples(None, values=Ragged.of(rows, np.float32), closes=[False, False])
        next_N = engine.after(own)[:, 0, 0].numpy()
        np.testing.assert_allclose(middle[:, step, 0], next_N, atol=1e-5)
        rows = [np.concatenate([row, [[y, 1.0]]]).astype(np.float32) for row, y in zip(rows, next_N, strict=True)]


def test_a_long_history_is_read_as_far_as_the_window_leaves_room():
    engine, given = network("attention", window=8), examples(30)
    last = given[0].values[-5:]
    short = Examples(None, values=Ragged.of([last], np.float32), opens=[False], closes=[False])
    np.testing.assert_allclose(engine.paths(given, 3, 2), engine.paths(short, 3, 2), atol=1e-6)


def test_quantiles_ahead_are_those_of_the_paths_and_classical_ones_exact(monkeypatch):
    engine, given = network("gru"), examples(6, 4, 9)
    monkeypatch.setattr("seqloom.app._values.PIECE", 2)
    mean, told = engine.ahead(given, 4, (0.1, 0.5, 0.9), seed=3)
    own = engine.paths(given, 4, 100, seed=3)
    np.testing.assert_allclose(mean, own.mean(1), atol=1e-5)
    np.testing.assert_allclose(told[..., 2], np.quantile(own, 0.9, axis=1), atol=1e-5)
    assert (np.diff(told, axis=-1) > 0).all()
    walk = RandomWalk(SIZES)
    walk.fit(given.values)
    counted = CountedValues(Blueprint(model=walk.config, sizes=SIZES), walk)
    mean, told = counted.ahead(given, 5, (0.1, 0.5))
    np.testing.assert_allclose(mean[1, :, 0], given[1].values[-1, 0], rtol=1e-6)
    np.testing.assert_allclose(told[..., 1], mean)
    want = stats.norm(mean[1, 3, 0], walk.scale_P[0] * 2).ppf(0.1)
    assert told[1, 3, 0, 0] == pytest.approx(want)


def test_a_runaway_path_stays_a_number(monkeypatch):
    monkeypatch.setattr(f"{__name__}.DECAY", 1e30)
    assert np.isfinite(sample_paths(Autoregression(), examples(3), Wanted(steps=9), window=0)).all()
