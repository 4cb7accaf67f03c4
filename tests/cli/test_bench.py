from seqloom.core import discovery


def test_a_kernel_is_timed_against_its_reference(answered):
    (result,) = answered("bench", "linear_scan", "--rounds", "1")["results"]
    assert not result["failure"]
    assert result["ratios"]["by the reference"] == 1
    assert all(seconds > 0 for seconds in result["seconds"].values())


def test_a_wrong_kernel_is_not_timed(called, monkeypatch):
    kernel = discovery.get("kernels", "linear_scan")
    right = kernel.reference
    monkeypatch.setattr(kernel, "reference", lambda *inputs: tuple(out + 1 for out in right(*inputs)))
    monkeypatch.setattr(type(kernel), "__call__", lambda self, *inputs: right(*inputs))
    code, out, _ = called("bench", "linear_scan", "--rounds", "1")
    assert code == 1
    assert "takes" not in out


def test_an_unknown_kernel_is_told(called):
    assert called("bench", "linear_scann")[0] == 2
