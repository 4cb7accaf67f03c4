import numpy as np
import pytest

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.majority import Majority

DATA = Ragged.of([[6], [], [6, 7], [7]])


def test_shares_of_the_classes():
    model = Majority(Sizes(classes=3), Majority.Config(pseudocount=1.0))
    model.fit(DATA, [2, 0, 2, 2])
    np.testing.assert_allclose(np.exp(model.predict_log_proba(DATA[:2])), [[2 / 7, 1 / 7, 4 / 7]] * 2, rtol=1e-14)
    again = Majority(Sizes(classes=3), Majority.Config(pseudocount=1.0))
    again.load(model.arrays())
    np.testing.assert_array_equal(again.predict_log_proba(DATA), model.predict_log_proba(DATA))


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="learnt nothing"):
        Majority(Sizes(classes=2)).predict_log_proba(DATA)
    with pytest.raises(ConfigError, match="at least one class"):
        Majority(Sizes())
    with pytest.raises(ConfigError, match="each needs one"):
        Majority(Sizes(classes=2)).fit(DATA, [0, 1])
    with pytest.raises(ConfigError, match="labels run from 0 to 2"):
        Majority(Sizes(classes=2)).fit(DATA, [0, 1, 2, 0])
    with pytest.raises(ConfigError, match="pseudocount must be above 0"):
        Majority(Sizes(classes=2), Majority.Config(pseudocount=0.0))
    with pytest.raises(CheckpointError, match="each of 2 classes"):
        Majority(Sizes(classes=2)).load({"classes": np.zeros(3)})
