import numpy as np
import pytest

from seqloom.core.component import Value
from seqloom.core.errors import CheckpointError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.class_conditional import ClassConditional
from seqloom.models.classical.markov import Markov
from seqloom.models.classical.unigram import Unigram

SIZES = Sizes(vocabulary=10, classes=2)


def directions(seed, count):
    """Class 0 goes up, class 1 goes down, through the same symbols equally often: only the order tells."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    rows = []
    for label in labels:
        step = np.where(rng.random(9) < 0.7, 1 - 2 * label, 2 * label - 1)
        rows.append(6 + (rng.integers(4) + np.cumsum(step)) % 4)
    return Ragged.of(rows), labels


def test_is_bayes_rule_over_the_models_of_the_classes():
    data, labels = directions(0, 60)
    config = ClassConditional.Config(model=Unigram.Config(), pseudocount=0.5)
    model = ClassConditional(SIZES, config)
    model.fit(data, labels)
    joint = []
    for k in (0, 1):
        own = Unigram(SIZES)
        own.fit(data.select(labels == k))
        joint.append([row.sum() for row in own.token_log_probs(data)] + np.log(((labels == k).sum() + 0.5) / 61))
    joint = np.stack(joint, 1)
    wanted = np.exp(joint) / np.exp(joint).sum(1, keepdims=True)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(data)), wanted, rtol=1e-10)
    assert Value.from_json(config.to_json()) == config


def test_the_order_of_symbols_tells_the_classes_apart():
    data, labels = directions(0, 400)
    test, wanted = directions(1, 200)
    hits = {}
    for inner in (Unigram.Config(), Markov.Config(order=1)):
        model = ClassConditional(SIZES, ClassConditional.Config(model=inner))
        model.fit(data, labels)
        hits[type(inner).owner] = (model.predict_log_proba(test).argmax(1) == wanted).mean()
    assert hits[Markov] > 0.85
    assert hits[Unigram] < 0.7


def test_validation_data_tell_how_sure_to_be():
    """With the labels of the held-out part turned to noise nothing should be believed; with true ones, much."""
    data, labels = directions(0, 100)
    held, truth = directions(1, 100)
    noise = np.random.default_rng(2).integers(0, 2, 100)
    scales, certain = [], []
    for given in (truth, noise):
        model = ClassConditional(SIZES, ClassConditional.Config(model=Markov.Config(order=1)))
        model.fit(data, labels, (held, given))
        scales.append(model.scale)
        certain.append(np.exp(model.predict_log_proba(held)).max(1).mean())
    assert scales[0] > 3 * scales[1]
    assert certain[0] > 0.8 > 0.7 > certain[1]
    plain = ClassConditional(SIZES, ClassConditional.Config(model=Markov.Config(order=1), calibrate=False))
    plain.fit(data, labels, (held, noise))
    assert plain.scale == 1.0


def test_saved_and_loaded_is_the_same():
    data, labels = directions(0, 50)
    model = ClassConditional(SIZES)
    model.fit(data, labels, directions(1, 20))
    again = ClassConditional(SIZES)
    again.load(model.arrays())
    np.testing.assert_array_equal(again.predict_log_proba(data), model.predict_log_proba(data))
    assert again.held_parameters == model.held_parameters
    with pytest.raises(CheckpointError, match="scale"):
        again.load({**model.arrays(), "scale": np.array([0.0])})
    with pytest.raises(CheckpointError):
        again.load({name: array for name, array in model.arrays().items() if not name.startswith("1/")})


def test_a_class_without_examples_keeps_its_share():
    data, labels = directions(0, 20)
    model = ClassConditional(Sizes(vocabulary=10, classes=3))
    model.fit(data, labels)
    p_NC = np.exp(model.predict_log_proba(data))
    np.testing.assert_allclose(p_NC.sum(1), 1, rtol=1e-12)
    assert (p_NC[:, 2] > 0).all()
    assert (p_NC.argmax(1) != 2).all()
