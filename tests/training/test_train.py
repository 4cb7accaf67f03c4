"""Whatever a run holds is trained and measured: a network on a task of ours, a classical model on a file."""

import pytest

from seqloom.core.component import Value
from seqloom.core.errors import ConfigError
from seqloom.data.batching import Batching
from seqloom.data.synthetic.selective_copy import SelectiveCopy
from seqloom.models.backbone import Backbone, pattern
from seqloom.models.causal_lm import CausalLM
from seqloom.models.classical.ngram import Ngram
from seqloom.tokenizers.symbols import Symbols
from seqloom.training.budget import Budget
from seqloom.training.prepare import prepare
from seqloom.training.run import Run
from seqloom.training.source import FileSource
from seqloom.training.train import measure, train

TASK = SelectiveCopy.Config(train=64, valid=8, test=16, vocab=4, keep=2, length=8)
MODEL = CausalLM.Config(backbone=Backbone.Config(width=8, layers=1, mixers=pattern("gru")))
RUN = Run(data=TASK, model=MODEL, budget=Budget(steps=4), batch=Batching(rows=16))


def test_a_task_is_measured_on_its_test_part_and_the_figures_repeat() -> None:
    got = measure(RUN)
    assert got == measure(RUN)
    assert got["steps"] == 4
    assert got["parameters"] == got["used_parameters"] > 0
    assert 0 < got["nll"] < 10
    assert 0 <= got["accuracy"] <= 1


def test_a_run_over_a_task_survives_json() -> None:
    assert Value.from_json(RUN.to_json()) == RUN


def test_a_classical_model_is_fitted_on_a_file() -> None:
    run = Run(
        data=FileSource(path="sample:flights"), tokenizer=Symbols.Config(), model=Ngram.Config(), budget=RUN.budget
    )
    data = prepare(run)
    trained = train(run, data)
    assert trained.stopped == "fitted"
    scored = trained.model.token_log_probs(data.test.tokens)
    assert -scored.values.mean() < 4.2, "nats a symbol; unigrams need 4.7"


def test_data_that_are_neither_file_nor_task_are_refused() -> None:
    with pytest.raises(ConfigError, match="neither a file nor a synthetic task"):
        prepare(Run(data=Budget(steps=1), model=MODEL, budget=RUN.budget))
