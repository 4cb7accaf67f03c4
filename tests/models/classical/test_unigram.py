import numpy as np
import pytest

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical.unigram import Unigram


def test_closed_form():
    model = Unigram(Sizes(vocabulary=9), Unigram.Config(pseudocount=0.25))
    model.fit(Ragged.of([[6, 6, 7], [], [7]]))
    total = 4 + 3 + 0.25 * 5  # four symbols, three ends; three symbols, <eos> and <unk> share the rest
    wanted = np.array([0, 0, 3.25, 0.25, 0, 0, 2.25, 2.25, 0.25]) / total
    np.testing.assert_allclose(model.distribution([6, 8]), wanted, rtol=1e-14)
    scores = model.token_log_probs(Ragged.of([[6, 8]]))[0]
    np.testing.assert_allclose(scores, np.log(wanted[[6, 8, 2]]), rtol=1e-14)


def test_first_symbols_of_windows_are_not_counted():
    model = Unigram(Sizes(vocabulary=9))
    model.fit(Ragged.of([[6, 7], [7, 8]]), opens=[True, False], closes=[False, True])
    assert model.arrays()["count"].tolist() == [0, 0, 1, 0, 0, 0, 1, 1, 1]


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError, match="pseudocount must be above 0"):
        Unigram(Sizes(vocabulary=9), Unigram.Config(pseudocount=0.0))
    with pytest.raises(CheckpointError, match="count for each of 9"):
        Unigram(Sizes(vocabulary=9)).load({"count": np.zeros(8, np.int64)})
