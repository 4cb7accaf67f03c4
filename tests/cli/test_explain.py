import pytest


def test_a_kernel_tells_who_runs(answered):
    verdicts = answered("explain", "kernel", "linear_scan")["dispatch"]["verdicts"]
    assert sum(verdict["runs"] for verdict in verdicts) == 1
    refused = [verdict for verdict in verdicts if "cuda" in verdict["backend"]]
    assert all("cpu" in verdict["reason"] or "installed" in verdict["reason"] for verdict in refused)


def test_a_mixer_tells_its_traits_and_fields(answered, called):
    got = answered("explain", "mixer", "gru")
    assert got["traits"]["step"] == "constant"
    assert {"hidden", "update_bias"} <= {field["field"] for field in got["fields"]}
    assert "longer" in called("explain", "mixer", "gru")[1]


def test_an_unknown_part_is_told(called):
    code, _, err = called("explain", "mixer", "grue")
    assert code == 2
    assert "gru" in err


def test_a_mixer_tells_its_cost_with_its_options(answered, called):
    from seqloom.mixers.ssm.s4d import S4D

    got = answered("explain", "mixer", "s4d", "--option", "state=16", "--width", 8)
    mixer = S4D(8, S4D.Config(state=16))
    assert got["options"] == ["state=16"]
    assert got["cost"]["parameters"] == sum(parameter.numel() for parameter in mixer.parameters())
    for one in got["cost"]["lengths"]:
        assert one["flops"] == mixer.flops(one["length"])
        assert one["state_bytes"] == mixer.state_bytes(one["length"])
    out = called("explain", "mixer", "attention", "--option", "causal=false")[1]
    assert "step: none" in out
    assert "known gaps:" in out


@pytest.mark.parametrize("ending", ["svg", "png", "html"])
def test_kernels_are_drawn(called, tmp_path, ending):
    file = tmp_path / f"k.{ending}"
    code, out, err = called("explain", "mixer", "s4d", "--width", 4, "--plot", file, "--length", 50)
    assert code == 0, err
    assert "traits" in out
    head = {"svg": b"<svg", "png": b"\x89PNG", "html": b"<!doctype html"}[ending]
    assert file.read_bytes().startswith(head)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("mixer", "gru", "--plot", "k.svg"), "no kernel"),
        (("mixer", "s4d", "--plot", "k.jpg"), ".svg, .png, .html"),
        (("mixer", "s4d", "--plot", "k.svg", "--length", "1"), "2 lags"),
        (("mixer", "s4d", "--option", "stat=3"), "state"),
        (("kernel", "linear_scan", "--plot", "k.svg"), "for mixers"),
    ],
)
def test_what_cannot_be_drawn_is_told(called, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    code, out, err = called("explain", *words)
    assert code == 2
    assert told in err
    assert not out
    assert not list(tmp_path.iterdir())
