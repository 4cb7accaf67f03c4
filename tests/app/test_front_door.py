"""``import seqloom`` is quick and has the same words as the command line."""

import subprocess
import sys

import pytest

import seqloom
from seqloom.core import discovery


def test_importing_loads_no_torch():
    script = "import sys, seqloom; print(sorted({'torch', 'polars', 'pyarrow', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", seqloom.__all__)
def test_every_public_name_is_there(name):
    assert getattr(seqloom, name).__name__ == name
    assert name in dir(seqloom)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="fitt"):
        seqloom.fitt  # noqa: B018


def test_the_command_line_has_the_same_words():
    methods = {"predict", "score", "generate", "embed", "similar"}
    assert {"fit", "compare", "inspect", *methods} <= set(discovery.names("cli"))
    assert all(hasattr(seqloom.Fitted, name) for name in methods)
