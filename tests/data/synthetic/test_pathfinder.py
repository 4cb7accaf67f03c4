"""Pathfinder: the dashes, the oracle against scipy's components, and that nothing but the way tells the label."""

from itertools import pairwise

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.core.rng import generator
from seqloom.data.synthetic import pathfinder
from seqloom.data.synthetic.pathfinder import BLANK, INK, Pathfinder

SMALL = Pathfinder.Config(side=24, contour=3, distractors=1)


def drawings(config, count):
    for index in range(10 * count):
        drawing = pathfinder._drawing(generator(0, "test", index), config)
        if drawing is not None:
            yield drawing
            count -= 1
        if not count:
            return


def distance(one, other):
    return max(abs(one[0] - other[0]), abs(one[1] - other[1]))


@pytest.mark.parametrize("config", [SMALL, Pathfinder.Config()])
def test_dashes_of_a_curve_are_near_and_curves_are_apart(config):
    for curves, _ in drawings(config, 15):
        assert len(curves) == 2 + config.distractors
        assert [len(curve) for curve in curves[:2]] == [config.contour] * 2
        for curve in curves:
            assert all(len(set(dash)) == 3 for dash in curve)
            for dash, after in pairwise(curve):
                assert 1 <= distance(dash[-1], after[0]) <= 2
        pixels = [[pixel for dash in curve for pixel in dash] for curve in curves]
        for i, own in enumerate(pixels):
            for others in pixels[:i]:
                assert min(distance(a, b) for a in own for b in others) >= 3


def test_dots_are_ends_of_one_curve_or_of_two_as_far_apart():
    for curves, (apart, connected) in drawings(SMALL, 40):
        owner = {end: number for number, curve in enumerate(curves) for end in (curve[0][0], curve[-1][-1])}
        assert owner[connected[0]] == owner[connected[1]] < 2
        assert {owner[apart[0]], owner[apart[1]]} == {0, 1}
        far, near = (np.hypot(*np.subtract(*dots)) for dots in (apart, connected))
        assert abs(far - near) <= 2
        for label, dots in enumerate((apart, connected)):
            picture = pathfinder._picture(curves, dots, SMALL.side)
            if len(pathfinder._blocks(picture)) == 2:
                tokens = np.where(picture.reshape(-1), INK, BLANK)
                example = Pathfinder(SMALL).examples("train", 0, 0, 1)[0]
                assert Pathfinder(SMALL).oracle(type(example)(index=0, tokens=tokens)).tolist() == [label]


def test_flooding_agrees_with_scipys_components():
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    task = Pathfinder()
    for example in task.examples("test", 0, 0, 40):
        picture = (example.tokens == INK).reshape(32, 32)
        pixels = np.argwhere(picture)
        near = KDTree(pixels).query_pairs(2, p=np.inf, output_type="ndarray")  # at most one blank pixel between
        graph = coo_array((np.ones(len(near)), near.T), shape=(len(pixels),) * 2)
        _, region = connected_components(graph, directed=False)
        one, other = (int(np.flatnonzero((pixels == dot).all(1))[0]) for dot in pathfinder._blocks(picture))
        assert example.target == (region[one] == region[other])


@pytest.mark.slow
def test_a_bag_of_pixels_and_the_distance_of_the_dots_tell_nothing():
    """A logistic regression on pixels is at 50 %, and so is one on the distance: within 3 standard errors of 0.5."""
    linear = pytest.importorskip("sklearn.linear_model")
    task = Pathfinder(Pathfinder.Config(side=20, contour=3, distractors=0))
    train, test = task.examples("train", 0, 0, 1500), task.examples("test", 0, 0, 1000)

    def features(examples):
        pictures = np.stack([example.tokens == INK for example in examples])
        dots = [pathfinder._blocks(picture.reshape(20, 20)) for picture in pictures]
        far = np.array([np.hypot(*np.subtract(*pair)) for pair in dots])
        return {"pixels": pictures.astype(float), "distance": far[:, None], "ink": pictures.sum(1)[:, None]}

    learnt, judged = features(train), features(test)
    for name in learnt:
        model = linear.LogisticRegression(C=0.01, max_iter=500).fit(learnt[name], train.targets)
        assert abs(model.score(judged[name], test.targets) - 0.5) < 3 * np.sqrt(0.25 / 1000), name


@pytest.mark.parametrize(
    "options", [{"contour": 1}, {"distractors": -1}, {"contour": 14}, {"distractors": 9}, {"side": 12}]
)
def test_what_does_not_fit_is_refused(options):
    with pytest.raises(ConfigError, match=r"do not fit|a curve needs"):
        Pathfinder.Config(**options)
