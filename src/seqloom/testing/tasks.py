"""The contract of synthetic tasks, for our own and for those of other packages.

    check_task(MyTask.Config(length=12))        raises an AssertionError that says what is broken

A task is exact or it measures nothing: its oracle is always right and reads nothing behind what is asked, its floor is
what a guess really reaches, no test example is trained on, and an example is a function of seed, part and number alone.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from seqloom.core import discovery
from seqloom.core.batch import Example
from seqloom.core.component import Value
from seqloom.core.specials import SPECIALS
from seqloom.data.batching import Batching
from seqloom.data.examples import Examples
from seqloom.data.synthetic._base import Part, Task
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.models.encoder import Encoder
from seqloom.training.budget import Budget
from seqloom.training.run import Run
from seqloom.training.train import measure

PARTS: tuple[Part, ...] = ("train", "valid", "test")
SIGMAS = 4.0  # standard errors between the floor and what a guess was measured to reach


def check_task(config: Task.Config, most: int = 1000) -> None:
    """Run every check.

    Args:
        config: The task with its options.
        most: Examples of each part that are looked at, where they are not found and fewer.
    """
    assert Value.from_json(config.to_json()) == config, "the Config does not survive JSON"
    task: Task = config.build()
    drawn = {part: some(task, part, most) for part in PARTS}
    check_form(task, drawn)
    check_oracle(task, drawn)
    check_floor(task, drawn)
    check_leakage(drawn)
    check_determinism(task)
    check_training(task)


def some(task: Task, part: Part, most: int) -> Examples:
    """Examples of a part; of a data set, no more than there are."""
    return task.examples(part, 0, 0, min(most, getattr(task.config, part)) if task.found else most)


def check_form(task: Task, drawn: Mapping[Part, Examples]) -> None:
    """Ids, classes and channels are those that the sizes name; labels mark what is asked."""
    assert (task.task == "classify") == (task.objective == "classify"), "task and objective disagree"
    assert task.objective in discovery.names("objectives"), f"there is no objective {task.objective}"
    sizes = task.sizes
    for part, examples in drawn.items():
        for example in examples[:20]:
            where = f"{part} {example.index}"
            if sizes.channels:
                assert example.values is not None, f"{where} has no values"
                assert example.values.shape[1] == sizes.channels, f"{where} has other channels"
                assert example.values.dtype == np.float32, f"{where} has values of {example.values.dtype}"
            else:
                assert len(example.tokens), f"{where} is empty"
                assert 0 <= example.tokens.min() <= example.tokens.max() < sizes.vocabulary, f"{where}: id out of range"
            if task.task == "classify":
                assert example.target in range(sizes.classes), f"{where} has the class {example.target!r}"
            else:
                assert set(example.labels["weight"].tolist()) <= {0.0, 1.0}, f"{where} has a weight between 0 and 1"
                asked = task.answers(example)
                assert len(asked), f"{where} asks nothing"
                assert 0 <= asked.min() <= asked.max() < sizes.vocabulary, f"{where}: answer out of range"


def check_oracle(task: Task, drawn: Mapping[Part, Examples]) -> None:
    """The oracle is right on every example, and as right with everything taken away that it must not read."""
    for part, examples in drawn.items():
        for example in examples[:200]:
            right = task.answers(example)
            for number, cut in _prefixes(task, example):
                said = task.oracle(cut)
                assert len(said) > number, f"{part} {example.index}: the oracle has no answer {number}"
                assert said[number] == right[number], (
                    f"{part} {example.index}: the oracle says {said[number]} to question {number}, right is "
                    f"{right[number]}"
                )
            said = task.oracle(_blind(task, example))
            assert np.array_equal(said, right), f"{part} {example.index}: the oracle says {said}, right is {right}"


def check_floor(task: Task, drawn: Mapping[Part, Examples]) -> None:
    """The constant answer that is best on the training part reaches the floor on the test part, within its error.

    The error is taken over examples, since the answers of one may depend on each other. A data set has none: its floor
    is the share of its own most frequent answer.
    """
    asked = {part: [task.answers(example) for example in drawn[part]] for part in ("train", "test")}
    pool = np.concatenate(asked["test" if task.found else "train"])
    best = Counter(pool.tolist()).most_common(1)[0][0]
    hits_N = np.array([(answers == best).sum() for answers in asked["test"]], float)
    size_N = np.array([len(answers) for answers in asked["test"]], float)
    reached = float(hits_N.sum() / size_N.sum())
    error = 0.0 if task.found else float(np.sqrt(((hits_N - task.floor * size_N) ** 2).sum()) / size_N.sum())
    assert abs(reached - task.floor) <= SIGMAS * error + 1e-12, (
        f"a constant reaches {reached:.4f} (error {error:.4f}), the floor is {task.floor:.4f}"
    )


def check_leakage(drawn: Mapping[Part, Examples]) -> None:
    """No example of the validation or the test part is trained on, nor in the other one."""
    seen = {part: {_content(example) for example in examples} for part, examples in drawn.items()}
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        shared = len(seen[one] & seen[other])
        assert not shared, f"{shared} examples of the {other} part are in the {one} part, too"


def check_determinism(task: Task) -> None:
    """An example is a function of seed, part and number, whatever else is made, in whatever order."""
    for part in PARTS:
        few = [_whole(example) for example in task.examples(part, 1, 0, 6)]
        later = [_whole(example) for example in task.examples(part, 1, 3, 6)]
        assert few[3:] == later, f"{part}: an example depends on the range that it was made with"
        small = replace(task.config, **dict.fromkeys(PARTS, 4)).build()
        assert [_whole(e) for e in small.examples(part, 1)] == few[:4], (
            f"{part}: an example depends on how many there are"
        )
        assert task.examples(part, 1, 3, 6).numbers.tolist() == [3, 4, 5], f"{part}: the numbers are not kept"
        other = [_whole(example) for example in task.examples(part, 2, 0, 6)]
        assert (other == few) == task.found, f"{part}: another seed " + (
            "gives others" if task.found else "changes nothing"
        )


def check_training(task: Task) -> None:
    """The one loop takes two steps of its objective and measures the test part."""
    backbone = Backbone.Config(width=8, layers=1, mixers=pattern("gru"))
    model = Encoder.Config(backbone=backbone) if task.task == "classify" else CausalLM.Config(backbone=backbone)
    objective: Any = discovery.get("objectives", task.objective)
    run = Run(
        data=replace(task.config, train=8, valid=2, test=4),
        model=model,
        task=task.task,
        objective=objective.Config(),
        budget=Budget(steps=2),
        batch=Batching(rows=4),
    )
    got = measure(run)
    assert got["steps"] == 2, f"{got['steps']} steps were taken"
    assert math.isfinite(got["nll"]), f"the loss is {got['nll']}"
    assert 0 <= got["accuracy"] <= 1, f"the accuracy is {got['accuracy']}"


def _prefixes(task: Task, example: Example) -> list[tuple[int, Example]]:
    """For the first, the middle and the last question: its number, and the example without what comes after it."""
    if task.task == "classify":
        return []
    asked = np.flatnonzero(example.labels["weight"] == 1)
    cuts = []
    for number in sorted({0, len(asked) // 2, len(asked) - 1}):
        stop = int(asked[number]) + (task.objective == "tag")
        if task.objective == "tag":
            labels = {name: label[:stop] for name, label in example.labels.items() if name != "answer"}
            cuts.append((number, replace(example, tokens=example.tokens[:stop], labels=labels)))
        else:
            tokens = example.tokens.copy()
            tokens[stop:] = SPECIALS.pad
            cuts.append((number, replace(example, tokens=tokens)))
    return cuts


def _blind(task: Task, example: Example) -> Example:
    """An example without its answers."""
    if task.task == "classify":
        return replace(example, target=None)
    if task.objective == "tag":
        return replace(example, labels={"weight": example.labels["weight"]})
    tokens = np.where(example.labels["weight"] == 1, SPECIALS.pad, example.tokens)
    return replace(example, tokens=tokens.astype(example.tokens.dtype))


def _content(example: Example) -> bytes:
    return example.tokens.tobytes() if example.values is None else example.values.tobytes()


def _whole(example: Example) -> tuple[Any, ...]:
    labels = tuple((name, label.tobytes()) for name, label in sorted(example.labels.items()))
    return example.index, _content(example), labels, example.target
