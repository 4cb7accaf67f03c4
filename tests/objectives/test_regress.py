import numpy as np
import pytest
import torch

from seqloom.core.batch import Example
from seqloom.core.errors import ConfigError
from seqloom.core.outputs import Outputs
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.layers.gaussian import Gaussian
from seqloom.layers.quantiles import Quantiles
from seqloom.objectives.regress import Regress

stats = pytest.importorskip("scipy.stats")


def example(tokens, y, **options):
    return Example(index=0, tokens=np.array(tokens, np.int32), labels={"y": np.array(y, np.float64)}, **options)


def test_every_event_has_its_number_and_the_beginning_that_of_the_first():
    batch = Regress().batch([example([6, 7, 8], [5, 3, 0]), example([], []), example([9], [np.nan])])
    assert batch.tokens.tolist() == [[1, 6, 7, 8], [1, 0, 0, 0], [1, 9, 0, 0]]
    assert batch.targets.tolist() == [[5, 5, 3, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert batch.weights.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert batch.layout.lengths_B.tolist() == [4, 1, 2]


def test_the_first_symbol_of_a_later_window_is_input_alone_and_no_number_is_lost_or_doubled():
    y = np.arange(9, dtype=np.float64)
    whole = Examples(Ragged.of([np.arange(6, 15)]), labels={"y": Ragged.of([y], np.float64)})
    windows = whole.windows(4)
    batch = Regress().batch(list(windows))
    assert batch.tokens[1, 0] == 9  # read again, not told again
    assert batch.weights[1, 0] == 0
    told = batch.targets[batch.weights > 0].tolist()
    assert told == [0.0, *y]
    assert (windows.lengths + Regress.margin >= batch.layout.lengths_B.numpy()).all()


def test_packed_rows_mark_where_each_example_starts():
    batch = Regress().batch([example([6], [1]), example([7, 8], [2, 3])], rows=[0, 0])
    assert batch.tokens[0].tolist() == [1, 6, 1, 7, 8]
    assert batch.targets[0].tolist() == [1, 1, 2, 2, 3]
    assert batch.layout.starts_BT.tolist() == [[True, False, True, False, False]]


def test_inputs_stand_beside_their_symbols():
    rows = np.array([[0.5], [0.7]], np.float32)
    batch = Regress().batch([example([6, 7], [1, 0], values=rows)])
    assert batch.values_BTC[0, :, 0].tolist() == pytest.approx([0, 0.5, 0.7])


def test_the_loss_is_the_likelihood_per_number():
    batch = Regress().batch([example([6, 7], [1.0, -2.0])])
    distribution = torch.randn(1, 3, 1, 2)
    terms = Regress().loss(Outputs({"distribution": distribution, "head": Gaussian(1, 1)}), batch)
    want = -sum(
        stats.norm(m, np.exp(s)).logpdf(y) for (m, s), y in zip(distribution[0, :, 0].tolist(), [1, 1, -2], strict=True)
    )
    assert float(terms["loss"].sum) == pytest.approx(float(want), rel=1e-5)
    assert float(terms["loss"].count) == 3
    assert (terms["loss"].weight, terms["nll"].weight) == (1.0, 0.0)


@pytest.mark.parity
def test_the_loss_of_quantiles_is_sklearns():
    from sklearn.metrics import mean_pinball_loss

    head = Quantiles(1, 1, Quantiles.Config(count=3))
    quantiles = torch.randn(1, 2, 1, 3).sort(-1).values
    batch = Regress().batch([example([6], [0.3])])
    terms = Regress().loss(Outputs({"distribution": quantiles, "head": head}), batch)
    want = [mean_pinball_loss([0.3] * 2, quantiles[0, :, 0, k], alpha=(k + 1) / 4) for k in range(3)]
    assert float(terms["loss"].sum) / 2 == pytest.approx(2 * np.mean(want), rel=1e-5)


def test_examples_without_numbers_are_refused():
    with pytest.raises(ConfigError, match="example 3 has no number after each of its events"):
        Regress().batch([Example(index=3, tokens=np.array([6], np.int32))])
