"""The contract of every classical next-symbol model, for our own and for those of other packages.

    check_classical(MyModel.Config(order=3))        raises AssertionError that says what broke

It is run on a small made-up language with an empty sequence, a symbol that was never seen, and <unk>.
Shapes: B rows, T time, q tokens of a call, V vocabulary.
"""

from collections.abc import Callable

import numpy as np
import torch

from seqloom.core.batch import Batch
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.layout import Layout
from seqloom.core.protocols import Stepper
from seqloom.core.sizes import Sizes
from seqloom.core.specials import SPECIALS
from seqloom.data.ragged import Ragged
from seqloom.models.classical._base import ClassicalModel

SIZES = Sizes(vocabulary=11)
"""Six specials and five symbols; the last is never seen in training."""
EXACT = 1e-12
BOS, PAD = SPECIALS.bos, SPECIALS.pad


def language(seed: int = 0, sequences: int = 40) -> Ragged:
    """Sequences over four symbols with a memory of two, an empty one among them."""
    rng = np.random.default_rng(seed)
    rows: list[list[int]] = [[]]
    for _ in range(sequences):
        row = rng.integers(0, 4, 2).tolist()
        for _ in range(rng.integers(0, 12)):
            row.append((row[-1] + row[-2] + int(rng.random() < 0.2)) % 4)
        rows.append([6 + x for x in row])
    return Ragged.of(rows)


def check_classical(config: ClassicalModel.Config) -> None:
    """Run every check on a model with these options."""
    model: ClassicalModel = config.build(SIZES)
    check_refusals(model, config)
    model.fit(language(), language(9, 10))
    assert isinstance(model, Stepper), "the model is no Stepper"
    for check in CHECKS:
        check(model)


def _prefixes() -> list[list[int]]:
    rng = np.random.default_rng(1)
    drawn = [rng.integers(6, SIZES.vocabulary, rng.integers(1, 9)).tolist() for _ in range(20)]
    return [[], [10], [3, 6], [9, 10, 6], *drawn]


def check_distributions(model: ClassicalModel) -> None:
    """Mass 1 over the ordinary symbols, the end and <unk>, whatever came before; 0 on the other specials."""
    for prefix in _prefixes():
        p_V = model.distribution(prefix)
        assert abs(p_V.sum() - 1) <= EXACT, f"probabilities after {prefix} sum to {p_V.sum()}"
        assert not p_V[list(SPECIALS.unpredictable)].any(), f"an unpredictable special has mass after {prefix}"
        assert (np.delete(p_V, SPECIALS.unpredictable) > 0).all(), f"a symbol has no mass after {prefix}"


def check_scores(model: ClassicalModel) -> None:
    """Scores are those of the distributions, for whole sequences, windows and streams longer than a block."""
    data = Ragged.of([*_prefixes(), *language(3)])
    scores = model.token_log_probs(data)
    assert scores.lengths.tolist() == (data.lengths + 1).tolist(), "not length + 1 scores a sequence"
    for row, score in zip(data, scores, strict=True):
        wanted = [model.distribution(row[:t])[token] for t, token in enumerate([*row, SPECIALS.eos])]
        np.testing.assert_allclose(score, np.log(wanted), atol=EXACT, err_msg=f"scores of {row}")
    row = [6, 7, 8, 9, 6]
    open_end = model.token_log_probs(Ragged.of([row]), closes=[False])[0]
    np.testing.assert_array_equal(open_end, model.token_log_probs(Ragged.of([row]))[0][:-1])
    windows = model.token_log_probs(Ragged.of([row, row, []]), opens=[False] * 3, closes=[False, True, False])
    assert windows.lengths.tolist() == [4, 5, 0], "the first symbol of a window that goes on is not input alone"
    wanted = [model.distribution(row[:t], opens=False)[row[t]] for t in range(1, 5)]
    np.testing.assert_allclose(windows[0], np.log(wanted), atol=EXACT, err_msg="scores of a window")
    long = np.random.default_rng(0).integers(6, 10, 40_000)
    tail = model.token_log_probs(Ragged.of([long]))[0]
    for t in (16_383, 16_384, 16_385, 32_768, 39_999):
        np.testing.assert_allclose(tail[t], np.log(model.distribution(long[:t])[long[t]]), atol=EXACT)


def check_steps(model: ClassicalModel) -> None:
    """Whole = chunks = the distributions, row by row, after ``select`` and ``fork`` too."""
    tokens_BT = torch.tensor([[BOS, 6, 7, 8, 6, 9], [BOS, 10, 6, 6, 3, 7]])
    whole_BTV, end = model.step(tokens_BT, model.start(Batch(tokens_BT=tokens_BT)))
    state, parts = model.start(Batch(tokens_BT=tokens_BT), capacity=1), []
    for begin, stop in ((0, 1), (1, 4), (4, 6)):
        logits, state = model.step(tokens_BT[:, begin:stop], state)
        parts.append(logits)
    assert torch.equal(torch.cat(parts, 1), whole_BTV), "chunks differ from the whole"
    assert state.length_B.tolist() == end.length_B.tolist() == [6, 6]
    for row, logits_TV in zip(tokens_BT, whole_BTV, strict=True):
        wanted = [model.distribution(row[1 : t + 1]) for t in range(len(row))]
        np.testing.assert_allclose(logits_TV.exp(), wanted, atol=EXACT, err_msg="steps differ from distribution()")
    picked_BV = model.step(torch.tensor([[7], [8], [7]]), end.select(torch.tensor([1, 0, 0])))[0]
    for b, (row, token) in enumerate([(1, 7), (0, 8), (0, 7)]):
        line_1T = torch.cat([tokens_BT[row], torch.tensor([token])])[None]
        assert torch.equal(picked_BV[b, 0], _scratch(model, line_1T)[-1]), "a selected row does not go on as itself"


def check_rollback(model: ClassicalModel) -> None:
    """Back by different amounts and on with other tokens = from scratch, bit for bit."""
    tokens_BT = torch.tensor([[BOS, 6, 7, 8, 6, 9]] * 3)
    _, state = model.step(tokens_BT, model.start(Batch(tokens_BT=tokens_BT)))
    back = state.fork().rollback(torch.tensor([0, 3, 6]))
    assert back.length_B.tolist() == [6, 3, 0]
    more_Bq = torch.tensor([[7, 9], [6, 6], [BOS, 9]])
    logits_BqV, after = model.step(more_Bq, back)
    again_BqV, _ = model.step(torch.tensor([[8]] * 3), after)
    for row, keep in enumerate((6, 3, 0)):
        line_T = torch.cat([tokens_BT[row, :keep], more_Bq[row], torch.tensor([8])])
        wanted_TV = _scratch(model, line_T[None])
        assert torch.equal(logits_BqV[row], wanted_TV[-3:-1]), f"back by {6 - keep} is not as from scratch"
        assert torch.equal(again_BqV[row], wanted_TV[-1:]), "what follows a rollback is not as from scratch"
    twice = state.rollback(torch.tensor([2, 2, 2])).rollback(torch.tensor([1, 0, 0]))
    assert twice.length_B.tolist() == [3, 4, 4]
    _refused(lambda: twice.rollback(torch.tensor([4, 0, 0])), ConfigError, "cannot go back")


def check_padding(model: ClassicalModel) -> None:
    """Rows of different lengths, padded on either side = each alone."""
    rows = [[BOS, 6, 7, 8], [BOS, 9], []]
    for side in ("right", "left"):
        pads = [[PAD] * (4 - len(row)) for row in rows]
        lines_BT = torch.tensor(
            [row + pad if side == "right" else pad + row for row, pad in zip(rows, pads, strict=True)]
        )
        layout = Layout(lengths_B=torch.tensor([4, 2, 0]), side=side)
        logits_BTV, state = model.step(lines_BT, model.start(Batch(tokens_BT=lines_BT)), layout=layout)
        assert state.length_B.tolist() == [4, 2, 0]
        following_BqV, _ = model.step(torch.tensor([[7]] * 3), state)
        for b, row in enumerate(rows):
            wanted_TV = _scratch(model, torch.tensor([[*row, 7]]))
            at = slice(0, len(row)) if side == "right" else slice(4 - len(row), 4)
            assert torch.equal(logits_BTV[b, at], wanted_TV[:-1]), f"{side} padding changes a row"
            assert torch.equal(following_BqV[b], wanted_TV[-1:]), f"{side} padding changes the state"


def check_round_trip(model: ClassicalModel) -> None:
    """Arrays carry everything; what is not all there is refused."""
    again = type(model)(model.sizes, model.config)
    again.load({name: array.copy() for name, array in model.arrays().items()})
    data = language(5)
    assert again.token_log_probs(data) == model.token_log_probs(data), "loading changes the scores"
    assert again.held_parameters == model.held_parameters > 0
    _refused(lambda: type(model)(model.sizes, model.config).load({}), CheckpointError)


def check_repeatable(model: ClassicalModel) -> None:
    """The same data give the same arrays."""
    again = type(model)(model.sizes, model.config)
    again.fit(language(), language(9, 10))
    for name, array in model.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], array, err_msg=f"{name} differs from fit to fit")


def check_nothing_to_learn(model: ClassicalModel) -> None:
    """No sequences at all still give a proper distribution."""
    empty = type(model)(model.sizes, model.config)
    empty.fit(Ragged.of([]))
    check_distributions(empty)


def check_refusals(model: ClassicalModel, config: ClassicalModel.Config) -> None:
    """What cannot work is a ConfigError that says so."""
    column = torch.tensor([[6]])
    _refused(lambda: model.token_log_probs(language()), ConfigError, "learnt nothing")
    _refused(lambda: model.fit(Ragged.of([[6, SPECIALS.eos]])), ConfigError, "special id 2")
    _refused(lambda: config.build(Sizes(vocabulary=6)), ConfigError, "needs symbols")
    model.fit(language())
    _refused(lambda: model.token_log_probs(Ragged.of([[6, 11]])), ConfigError, "vocabulary has 11")
    _refused(lambda: model.token_log_probs(language(), opens=[True]), ConfigError, "opens has the shape")
    state = model.start(Batch(tokens_BT=column))
    _refused(lambda: model.step(column + 5, state), ConfigError, "outside the vocabulary")
    tree = Layout(parents_BT=torch.tensor([[-1]]))
    _refused(lambda: model.step(column, state, layout=tree), ConfigError, "parents_BT")


CHECKS = (
    check_distributions,
    check_scores,
    check_steps,
    check_rollback,
    check_padding,
    check_round_trip,
    check_repeatable,
    check_nothing_to_learn,
)


def _prefixes() -> list[list[int]]:
    rng = np.random.default_rng(1)
    drawn = [rng.integers(6, SIZES.vocabulary, rng.integers(1, 9)).tolist() for _ in range(20)]
    return [[], [10], [3, 6], [9, 10, 6], *drawn]


def _scratch(model: ClassicalModel, line_1T: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (T, V) of one row in one call."""
    return model.step(line_1T, model.start(Batch(tokens_BT=line_1T)))[0][0]


def _refused(call: Callable[[], object], kind: type[Exception], words: str = "") -> None:
    try:
        call()
    except kind as error:
        told = str(error)
    else:
        raise AssertionError(f"nothing refuses this: {kind.__name__} {words}")
    assert words in told, f"the message does not say {words!r}: {told}"
