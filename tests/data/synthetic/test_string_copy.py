"""String copying: the form, the lengths, and parts that never meet."""

import numpy as np
import pytest

from seqloom.core.errors import ConfigError
from seqloom.core.specials import SPECIALS
from seqloom.data.synthetic.string_copy import FIRST, StringCopy


def test_the_form_is_bos_string_mark_string():
    for example in StringCopy().examples("train", 0, 0, 100):
        size = (len(example.tokens) - 2) // 2
        assert example.tokens[0] == SPECIALS.bos
        assert example.tokens[size + 1] == SPECIALS.sep
        assert example.tokens[1 : size + 1].tolist() == example.tokens[size + 2 :].tolist()
        assert example.labels["weight"].tolist() == [0] * (size + 2) + [1] * size
        assert example.tokens[1] >= FIRST


def test_training_lengths_are_even_and_the_test_length_is_exact():
    from scipy.stats import chisquare

    task = StringCopy(StringCopy.Config(vocab=20, length=6, test_length=50))
    sizes = [(len(example.tokens) - 2) // 2 for example in task.examples("train", 0, 0, 3000)]
    # single symbols are so few that a whole length may lose a fifth of its strings to the other parts
    assert chisquare(np.bincount(sizes, minlength=7)[2:]).pvalue > 1e-3
    assert set(sizes) == set(range(1, 7))
    assert {len(example.tokens) for example in task.examples("test", 0, 0, 20)} == {102}


def test_parts_share_no_string_even_where_there_are_few():
    task = StringCopy(StringCopy.Config(vocab=4, length=5, test=100))
    parts = [{e.tokens.tobytes() for e in task.examples(part, 0, 0, 600)} for part in ("train", "valid", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts))


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"vocab": 1}, "2 symbols"), ({"length": 0}, "length of 1"), ({"vocab": 2, "length": 5}, "too few strings of 5")],
)
def test_what_cannot_be_copied_or_divided_is_refused(options, reason):
    with pytest.raises(ConfigError, match=reason):
        StringCopy.Config(**options)
