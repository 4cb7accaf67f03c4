"""Fit one model on one file: read, split, train, judge beside the trivial answer, save."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqloom.app._engines import Engine, fitted_bayes, trained_engine
from seqloom.app._regress import calibrated
from seqloom.app.card import card, reads_inputs
from seqloom.app.device import device_named
from seqloom.app.drift import Profile
from seqloom.app.fitted import CONFIG, PROFILE, Fitted
from seqloom.app.judge import Judgement, judge, trivial, unknown_share
from seqloom.app.plan import Loaded, check_model, is_neural, load_data
from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.files import remove
from seqloom.core.lock import alone
from seqloom.core.protocols import Progress, Silent
from seqloom.data._mapped import give_back
from seqloom.data.target import LABEL
from seqloom.training import checkpoint
from seqloom.training.budget import parse
from seqloom.training.loop import CHECKPOINT, Loop, Trained
from seqloom.training.prepare import Prepared, encoded
from seqloom.training.run import Run
from seqloom.training.train import train

TIMING = "timing.json"
MANY = 5_000_000
"""Training symbols beyond which memory is handed back between the stages."""


@dataclass(frozen=True)
class Outcome:
    """A fitted model and how it did."""

    fitted: Fitted
    judgement: Judgement
    baseline: Judgement
    timing: dict[str, Any]
    events: list[dict[str, Any]]
    """Steps and looks of the training."""


def fit(
    source: Any,
    model: str | None = None,
    *,
    task: str = "auto",
    budget: str = "45s",
    seed: int = 7,
    out: str | Path | None = None,
    resume: bool = False,
    test: str | None = None,
    head: str = "auto",
    horizon: int = 0,
    target: str | None = None,
    device: str = "auto",
    start: str | Path | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Train a model and judge it on held-out data.

    Args:
        source: A path, ``sample:NAME``, a FileSource (columns, split), a frame, lists or arrays.
        model: A recipe, a classical model, a mixer, or a hybrid such as ``s4d*3,attention``; None = attention, or
            the model of ``start``.
        task: next, forecast, classify, regress, or auto: forecast with a horizon, regress with a target, classify
            where there are labels.
        budget: ``45s`` or ``2000steps``; seconds are turned into steps once, and written down.
        seed: Of the weights and the order of the data.
        out: Folder of the model; None keeps it in memory.
        resume: Go on from the last checkpoint in ``out``, or take the finished model there.
        test: A file that is the test part.
        head: Of a network over real values, or that tells a number: gaussian, quantiles, or auto: gaussian for
            values, quantiles for a number.
        horizon: Task forecast: how many steps ahead the model is judged on, and predicts.
        target: Task regress: ``remaining`` (the time until the last event), or the column whose value at the end is
            told; None = the label.
        device: auto, cpu, cuda.
        start: Folder of a network to go on from, on new data: its vocabulary, classes and sizes stay.
        progress: Where to tell how far it is.
    """
    name = model or "attention"
    check_model(name)
    folder = None if out is None else Path(out)
    with alone(folder):
        if not resume:
            check_folder(folder)
        if start is None:
            loaded = load_data(source, task=task, test=test, head=head, horizon=horizon, target=target)
            begun = None
            run = loaded.run(name, budget=budget, seed=seed)
        else:
            begun = _begun(start, model, task, target)
            told = begun.run.target if begun.run.target not in ("", LABEL) else None
            far = horizon or begun.run.horizon
            asked = "forecast" if far or task == "forecast" else begun.task
            loaded = load_data(source, task=asked, test=test, learnt=begun.learnt, horizon=far, target=told)
            run = replace(begun.run, data=loaded.base.data, budget=parse(budget), seed=seed, horizon=far)
            name = f"{Path(start).name}, continued"
        if folder is not None and (folder / CONFIG).is_file() and resume:
            return _finished(folder, run)
        weights = None if begun is None else begun.engine.tensors()
        options: dict[str, Any] = {"out": folder, "resume": resume, "device": device, "progress": progress}
        fitted = fit_run(run, loaded, name=name, weights=weights, **options).fitted
        finish(folder)
        return fitted


def fit_run(
    run: Run,
    loaded: Loaded,
    *,
    name: str,
    out: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    weights: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Train, judge and save one run over data that are in memory; ``weights`` = where a network begins.

    The last checkpoint stays, until whoever called says by ``finish`` that nothing can be lost any more.
    """
    progress = progress or Silent()
    where = device_named(device)
    whole, data = loaded.prepared, loaded.prepared_for(run)  # the second is cut into windows
    if whole.train.symbols >= MANY:
        give_back()
    if out is not None:
        checkpoint.write_json(out / "run.json", run.to_json())
    if is_neural(run.model):
        loop = Loop(run, data, out=out, device=where, progress=progress)
        if weights is not None:
            loop.model.load_state_dict(dict(weights))
        trained = loop.run(resume=resume)
        engine: Engine = calibrated(trained_engine(run, data, trained.model), whole.valid)
    else:
        if data.features is not None and not reads_inputs(run, data):
            progress.note(f"{name} does not read inputs: they are left out")
        engine, trained = _count(run, data, progress)
    progress.stage("judge on the test part")
    if whole.train.symbols >= MANY:
        give_back()
    got, baseline = judge(engine, whole), trivial(whole)
    timing = _timing(engine, trained, where)
    figures: dict[str, Any] = {"test": got.figures(), "trivial": baseline.figures()}
    figures["unknown_symbols"] = unknown_share(data)
    if data.target is not None:
        figures["unit"] = data.target.unit
    if data.parts:
        figures[PROFILE] = _profile(whole, got).to_json()
    if data.tokenizer is None and data.features is None:
        raise ConfigError("a model of made data cannot be saved: it has no vocabulary")
    fixed = replace(run, budget=replace(run.budget, seconds=None, steps=trained.steps)) if is_neural(run.model) else run
    text = card(name, run, loaded, got, baseline, timing)
    fitted = Fitted(engine, data.tokenizer, fixed, metrics=figures, files={"card.md": text})
    if out is not None:
        checkpoint.write_json(out / TIMING, timing)
        fitted.save(out)
    return Outcome(fitted, got, baseline, timing, trained.events)


def _profile(data: Prepared, got: Judgement) -> Profile:
    """What training saw and how the test part fitted, for the day when other data come."""
    test = encoded(data.parts["test"], data.tokenizer, data.features)
    raw = [one.tokens if one.tokens is not None else one.values for one in (data.train, test)]
    if raw[0] is None:
        raise ConfigError("data without symbols and values have no profile")
    profile = Profile.of(raw[0], raw[1], bits=got.each)
    return profile.with_channels(data.features, data.train.values, test.values)


def _count(run: Run, data: Prepared, progress: Progress) -> tuple[Engine, Trained]:
    """Fit a classical model, or one a class."""
    if run.task != "classify":
        trained = train(run, data, progress=progress)
        return trained_engine(run, data, trained.model), trained
    progress.stage("fit", len(data.classes), "class")
    began = time.perf_counter()
    engine = fitted_bayes(run, data)
    seconds = time.perf_counter() - began
    memory = sum(tensor.nbytes for tensor in engine.tensors().values())
    return engine, Trained(engine, 1, 1, seconds, data.train.symbols, [], memory, "fitted")


def _begun(start: str | Path, model: str | None, task: str, target: str | None) -> Fitted:
    """The network to go on from. ConfigError where the other options contradict it."""
    begun = Fitted.load(start)
    if not is_neural(begun.run.model):
        raise ConfigError(f"{start} is a classical model: it counts anew, so fit it on all the data together")
    if model is not None:
        raise ConfigError(f"{start} is a model already: leave --model away")
    if task not in ("auto", begun.task) and not (task == "forecast" and begun.predicts_values):
        raise ConfigError(f"{start} was trained for the task {begun.task}, not for {task}")
    told = begun.learnt.target
    known = "no number" if told is None else told.unit if told.name == LABEL else told.name
    if target not in (None, known):
        raise ConfigError(f"{start} tells {known}, not {target}: leave --target away")
    return begun


def _timing(engine: Engine, trained: Trained, device: torch.device) -> dict[str, Any]:
    return {
        "steps": trained.steps,
        "taken": trained.taken,
        "stopped": trained.stopped,
        "seconds": trained.seconds,
        "tokens": trained.tokens,
        "tokens_per_second": trained.tokens / max(trained.seconds, 1e-9),
        "memory": trained.memory,
        "parameters": engine.parameters,
        "device": str(device),
        "threads": torch.get_num_threads(),
    }


def check_folder(folder: Path | None, *, flag: str = "--out") -> None:
    """Refuse to write over a model, or where no folder can be; ``flag`` is what the user says it with."""
    if folder is None or not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose another place with {flag}")
    if (folder / CONFIG).is_file():
        raise ConfigError(f"{folder} holds a finished model; choose another place with {flag}, or remove it")
    if (folder / CHECKPOINT).is_file():
        raise ConfigError(f"{folder} holds an unfinished training; go on with --resume, or choose another place")


def finish(folder: Path | None) -> None:
    """Drop the checkpoint of a training whose result is safe."""
    if folder is not None:
        remove(folder / CHECKPOINT)


def _finished(folder: Path, run: Run) -> Fitted:
    """The finished model, if it is the one that was asked for."""
    fitted = Fitted.load(folder)
    same = replace(run, budget=fitted.run.budget) == fitted.run
    if not same:
        raise CheckpointError(f"{folder} holds a finished model of another run; choose another place with --out")
    finish(folder)
    return fitted
