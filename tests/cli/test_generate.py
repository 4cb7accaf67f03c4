def test_the_same_seed_writes_the_same(fitted, answered):
    words = ("generate", fitted, "--n", "3", "--limit", "6")
    assert answered(*words) == answered(*words)
    assert len(answered(*words)["rows"]) == 3
    assert answered(*words) != answered(*words, "--seed", "8")


def test_a_prompt_is_gone_on_from(fitted, answered):
    (row,) = answered("generate", fitted, "--prompt", "a b c", "--limit", "2", "--temperature", "0")["rows"]
    assert row["sequence"].startswith("a b c")


def test_a_negative_temperature_is_refused(fitted, called):
    assert called("generate", fitted, "--temperature", "-1")[0] == 2
