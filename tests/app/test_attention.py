import pytest

import seqloom
from seqloom.app.attention import use_attention
from seqloom.core.errors import ConfigError
from seqloom.mixers.attention.attention import Attention


@pytest.fixture(scope="module")
def fitted():
    return seqloom.fit("sample:flights", model="attention", budget="3steps")


def test_layers_change_how_they_read_and_back(fitted):
    layers = [part for part in fitted.engine.model.modules() if isinstance(part, Attention)]
    assert use_attention(fitted, "hip", 7) == len(layers) > 0
    assert all(layer.sparse is not None and layer.sparse.config.keys == 1 for layer in layers)
    assert len(fitted.generate(1, limit=3, seed=1)) == 1
    assert use_attention(fitted, "full") == len(layers)
    assert all(layer.sparse is None for layer in layers)


def test_what_cannot_be_changed_is_named(fitted):
    with pytest.raises(ConfigError, match="full or hip"):
        use_attention(fitted, "flash")
    with pytest.raises(ConfigError, match="no causal attention"):
        use_attention(seqloom.fit("sample:flights", model="lstm", budget="3steps"), "hip")
    with pytest.raises(ConfigError, match="has no attention"):
        use_attention(seqloom.fit("sample:flights", model="ngram"), "hip")
