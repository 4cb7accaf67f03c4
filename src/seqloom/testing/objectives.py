"""The contract of every objective, for our own and for third parties'.

Each check raises AssertionError with the name of what broke. ``check_objective(objective)`` runs them all on a small
random model; an objective that needs other outputs passes its own ``model`` and ``examples``.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from seqloom.core.batch import Batch, Example
from seqloom.core.outputs import Outputs
from seqloom.core.rng import generator
from seqloom.objectives._base import Objective, Term, total

Model = Callable[[Batch], Outputs]


def check_objective(objective: Objective, examples: Sequence[Example], model: Model) -> None:
    """Run every check.

    Args:
        objective: under test.
        examples: a few of different lengths, one of them empty if the objective allows it.
        model: named outputs of a batch, float64, deterministic, with gradients.
    """
    check_terms(objective, examples, model)
    check_split(objective, examples, model)
    check_packing(objective, examples, model)
    check_padding(objective, examples, model)
    check_corruption(objective, examples)
    check_gradient(objective, examples, model)


def check_terms(objective: Objective, examples: Sequence[Example], model: Model) -> None:
    """Sums and counts are scalars, declared weighted terms exist, and counts are known before the forward pass."""
    batch = objective.batch(examples)
    terms = objective.loss(model(batch), batch)
    weighted = {name for name, term in terms.items() if term.weight}
    assert weighted == set(objective.terms), f"weighted terms are {weighted}, declared {objective.terms}"
    for name, term in terms.items():
        assert isinstance(term, Term), f"{name} is no Term"
        assert term.sum.ndim == 0, f"{name}.sum has shape {tuple(term.sum.shape)}"
        assert torch.isfinite(term.sum), f"{name}.sum is {term.sum}"
    for name in weighted:
        torch.testing.assert_close(objective.count(batch, name).double(), terms[name].count.double())
    assert torch.isfinite(total(terms)), "the total is not finite"


def check_split(objective: Objective, examples: Sequence[Example], model: Model) -> None:
    """Sums and counts of a batch are those of its halves, unless rows are coupled by declaration."""
    if objective.batch_coupled:
        return
    half = len(examples) // 2
    whole = _terms(objective, examples, model)
    parts = [_terms(objective, part, model) for part in (examples[:half], examples[half:])]
    _same("batch split", whole, {name: _add(parts[0][name], parts[1][name]) for name in whole})


def check_packing(objective: Objective, examples: Sequence[Example], model: Model) -> None:
    """Examples that share a row have the terms that they have alone."""
    rows = [number // 2 for number in range(len(examples))]
    batch = objective.batch(examples, rows=rows)
    assert len(batch) == (len(examples) + 1) // 2, f"{len(examples)} examples in pairs made {len(batch)} rows"
    _same("packing", _terms(objective, examples, model), _sums(objective.loss(model(batch), batch)))


def check_padding(objective: Objective, examples: Sequence[Example], model: Model) -> None:
    """A longer neighbour, which makes the other rows' padding longer, changes nobody else's terms."""
    if objective.batch_coupled:
        return
    longest = max(examples, key=_steps)
    alone = [_terms(objective, [example], model) for example in (*examples, longest)]
    together = _terms(objective, [*examples, longest], model)
    summed = {name: (sum(p[name][0] for p in alone), sum(p[name][1] for p in alone)) for name in together}
    _same("padding", together, summed)


def check_corruption(objective: Objective, examples: Sequence[Example]) -> None:
    """Corruption is a pure function of the example and the key: no matter how often or in which order it is called."""
    for example in examples:
        before = example.tokens.copy()
        once = objective.corrupt(example, generator(1, "corrupt", 0, example.index))
        again = objective.corrupt(example, generator(1, "corrupt", 0, example.index))
        np.testing.assert_array_equal(example.tokens, before, "corrupt changed its input")
        np.testing.assert_array_equal(once.tokens, again.tokens, "corrupt is not reproducible")
        for name, label in once.labels.items():
            assert len(label) == len(once.tokens), f"the label {name} did not move with the tokens"


def check_gradient(objective: Objective, examples: Sequence[Example], model: Model) -> None:
    """The gradient of the total with respect to what the loss reads agrees with differences, in float64."""
    batch = objective.batch(examples)
    outputs = model(batch)
    others = {name: partial(outputs.__getitem__, name) for name in outputs if name != objective.output}
    given = outputs[objective.output].detach().double().requires_grad_()

    def loss(given: Tensor) -> Tensor:
        return total(objective.loss(Outputs({**others, objective.output: given}), batch))

    assert torch.autograd.gradcheck(_in_float64(loss), given, fast_mode=True), "wrong gradient"


def _steps(example: Example) -> int:
    return len(example.tokens) if example.values is None else len(example.values)


def _in_float64(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Losses raise their logits to float32 by ``.float()``; here that must not lower float64."""

    class Kept(torch.Tensor):
        def float(self, *_: object) -> Tensor:
            return self.as_subclass(torch.Tensor)

    return lambda logits: loss(logits.as_subclass(Kept))


def _terms(objective: Objective, examples: Sequence[Example], model: Model) -> dict[str, tuple[float, float]]:
    batch = objective.batch(examples)
    return _sums(objective.loss(model(batch), batch))


def _sums(terms: dict[str, Term]) -> dict[str, tuple[float, float]]:
    return {name: (float(term.sum.detach()), float(term.count)) for name, term in terms.items()}


def _add(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return a[0] + b[0], a[1] + b[1]


def _same(what: str, want: dict[str, tuple[float, float]], got: dict[str, tuple[float, float]]) -> None:
    assert want.keys() == got.keys(), f"{what}: terms {sorted(want)} became {sorted(got)}"
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-6, err_msg=f"{what}: term {name}")
