import numpy as np
import pytest
import torch

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.layers.gaussian import Gaussian
from seqloom.objectives.next_value import NextValue

stats = pytest.importorskip("scipy.stats")


def example(*values, index=0, opens=True):
    rows = np.array([[value, 1.0] for value in values], np.float32).reshape(len(values), 2)
    return Example(index=index, tokens=np.zeros(0, np.int32), values=rows, opens=opens, closes=False)


def test_inputs_and_targets_are_shifted_once():
    batch = NextValue().batch([example(7, 8, 9), example(5), example(3, 4, opens=False)])
    assert batch.tokens_BT is None
    assert batch.values_BTC[..., 0].tolist() == [[0, 7, 8], [0, 0, 0], [3, 0, 0]]
    assert batch.values_BTC[..., 1].tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert batch.targets[..., 0].tolist() == [[7, 8, 9], [5, 0, 0], [4, 0, 0]]
    assert batch.weights.tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0]]
    assert batch.layout.lengths_B.tolist() == [3, 1, 1]


def test_packed_rows_mark_where_each_example_starts():
    batch = NextValue().batch([example(7), example(8, 9)], rows=[0, 0])
    assert batch.values_BTC[0, :, 0].tolist() == [0, 0, 8]
    assert batch.layout.starts_BT.tolist() == [[True, True, False]]


def test_the_loss_is_the_likelihood_per_value():
    batch = NextValue().batch([example(1.0, -2.0), example(0.5)])
    distribution = torch.randn(2, 2, 1, 2)
    terms = NextValue().loss(Outputs({"distribution": distribution, "head": Gaussian(1, 1)}), batch)
    places = [(0, 0, 1.0), (0, 1, -2.0), (1, 0, 0.5)]
    want = -sum(stats.norm(distribution[b, t, 0, 0], distribution[b, t, 0, 1].exp()).logpdf(y) for b, t, y in places)
    assert float(terms["loss"].sum) == pytest.approx(want, rel=1e-5)
    assert float(terms["nll"].sum) == pytest.approx(want, rel=1e-5)
    assert float(terms["loss"].count) == 3
    assert (terms["loss"].weight, terms["nll"].weight) == (1.0, 0.0)


def test_symbols_are_refused():
    with pytest.raises(ConfigError, match="reads values alone"):
        NextValue().batch([Example(index=3, tokens=np.array([6], np.int32))])


def test_inputs_are_withheld_from_a_random_step_on_and_the_values_stay():
    rows = np.ones((9, 5), np.float32)
    given = Example(index=0, tokens=np.zeros(0, np.int32), values=rows, closes=False)
    objective = NextValue(NextValue.Config(predicted=2, withheld=1.0))
    cuts = set()
    for seed in range(40):
        values = objective.corrupt(given, np.random.default_rng(seed)).values
        assert values[:, :3].all()
        kept = values[:, 3:].all(1)
        assert (values[~kept, 3:] == 0).all()
        assert (np.diff(kept.astype(int)) <= 0).all()
        cuts.add(int(kept.sum()))
    assert len(cuts) > 5
    assert given.values.all(), "the data set itself stays as it is"
    rng = np.random.default_rng(0)
    assert all(NextValue(NextValue.Config(predicted=4, withheld=1.0)).corrupt(given, rng) is given for _ in range(9))
    assert all(NextValue().corrupt(given, rng) is given for _ in range(9)), "unknown is which columns are inputs"
    shares = [NextValue(NextValue.Config(predicted=2)).corrupt(given, rng) is not given for _ in range(400)]
    assert 0.05 < np.mean(shares) < 0.16
