import pytest

from seqloom.claims import _runner
from seqloom.core import discovery


def test_an_unknown_claim_is_told(called):
    code, _, err = called("claim", "perpetual_motion")
    assert code == 2
    assert "perpetual_motion" in err


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_every_finding_holds(holds, code, called, monkeypatch, tmp_path):
    finding = _runner.Judged("twice two", 4.0, "==", 4.0 if holds else 5.0, 0, holds)
    result = _runner.ClaimResult("sums", (0,), {}, (finding,), {"id": "sums"})
    monkeypatch.setattr(discovery, "names", lambda shelf: ("sums",) if shelf == "claims" else discovery_names(shelf))
    monkeypatch.setattr(_runner, "run_claim", lambda *_, **__: result)
    got, out, _ = called("claim", "sums", "--out", tmp_path)
    assert got == code
    assert ("FAILS" in out) is not holds


discovery_names = discovery.names
