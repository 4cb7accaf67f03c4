def test_the_card_of_a_log(log, answered):
    got = answered("inspect", log)
    assert (got["sequences"], got["symbols"], got["alphabet"], got["task"]) == (40, 159, 4, "next")
    assert got["lengths"] == [3, 4, 5]
    assert got["time"][0] == "2024-01-01 10:00:00"
    assert any("--case" in note for note in got["notes"])


def test_flags_override_guesses(log, answered):
    got = answered("inspect", log, "--event", "time", "--case", "event")
    assert got["sequences"] == 4


def test_people_see_every_guess(log, called):
    code, out, _ = called("inspect", log)
    assert code == 0
    assert "40 sequences, 159 symbols" in out
    assert out.count("guessed") >= 3
