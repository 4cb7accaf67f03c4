"""Digits against scikit-learn's own arrays."""

import sys

import numpy as np
import pytest

from seqloom.core.errors import ConfigError, MissingExtra
from seqloom.data.synthetic import digits
from seqloom.data.synthetic.digits import Digits

datasets = pytest.importorskip("sklearn.datasets")


def test_pixels_and_classes_are_those_of_the_data_set():
    known, task = datasets.load_digits(), Digits()
    train, test = task.examples("train"), task.examples("test")
    assert (len(train), len(task.examples("valid")), len(test)) == (1200, 200, 397)
    np.testing.assert_array_equal(np.stack([e.values[:, 0] for e in train]) * 16, known.data[:1200])
    np.testing.assert_array_equal(np.stack([e.values[:, 0] for e in test]) * 16, known.data[1400:])
    assert train.targets.tolist() == known.target[:1200].tolist()
    assert task.examples("valid").targets.tolist() == known.target[1399:1199:-1].tolist()
    assert task.floor == np.bincount(known.target[1400:]).max() / 397


def test_repeated_pixels_are_blocks_and_the_order_is_one_for_all():
    plain, shuffled = Digits(Digits.Config(repeat=4)), Digits(Digits.Config(repeat=4, permuted=True))
    first, other = plain.examples("test", 0, 0, 2), shuffled.examples("test", 5, 0, 2)
    image = datasets.load_digits().images[1400]
    np.testing.assert_array_equal(first[0].values.reshape(32, 32) * 16, image.repeat(4, 0).repeat(4, 1))
    assert first[0].values.shape == (1024, 1)
    order = np.lexsort((first[1].values[:, 0], first[0].values[:, 0]))
    again = np.lexsort((other[1].values[:, 0], other[0].values[:, 0]))
    for i in range(2):  # one permutation of the steps carries both pictures
        np.testing.assert_array_equal(first[i].values[order], other[i].values[again])
    assert not np.array_equal(first[0].values, other[0].values)


@pytest.mark.parametrize("options", [{"train": 1300}, {"test": 398}, {"repeat": 0}])
def test_more_than_there_is_is_refused(options):
    with pytest.raises(ConfigError, match=r"there are 1400 pictures|at least once"):
        Digits.Config(**options)


def test_pictures_end():
    with pytest.raises(ConfigError, match="no picture 397 in the test part"):
        Digits().examples("test", 0, 390, 400)


def test_without_the_package_the_extra_is_named(monkeypatch):
    digits._pictures.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match="scikit-learn"):
        Digits().examples("test", 0, 0, 1)
