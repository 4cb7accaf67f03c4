from seqloom.core import discovery


def test_shelves_and_their_parts(answered, called):
    assert set(answered("list", "mixers")["mixers"]) == set(discovery.names("mixers"))
    assert "sample:flights" in answered("list")["samples"]
    assert "gru" in called("list", "mixers")[1]


def test_unknown_shelf(called):
    assert called("list", "shoes")[0] == 2
