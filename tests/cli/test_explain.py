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
