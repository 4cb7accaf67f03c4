import pytest

from seqloom import testing


@pytest.mark.parametrize("name", ["mixer", "kernel", "objective", "decoder", "reader", "classical"])
def test_every_check_is_found_where_the_package_is_imported(name):
    assert getattr(testing, f"check_{name}").__name__ == f"check_{name}"


@pytest.mark.parametrize("name", ["check_", "check_nothing", "checks", "mixer"])
def test_what_is_no_check_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match="no attribute"):
        getattr(testing, name)
