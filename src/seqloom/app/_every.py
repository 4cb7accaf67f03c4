"""Which models a comparison has: those that were named, a usual choice, or every one that suits the data."""

from typing import Any

from seqloom import mixers
from seqloom.app.plan import TRIVIAL, Loaded, check_model
from seqloom.core import discovery
from seqloom.core.errors import ConfigError, MissingExtra

ALL = "all"
MODELS = ("unigram", "ngram", "lstm", "gru", "attention", "linear_attention", "s4d")
VALUE_MODELS = ("white_noise", "random_walk", *MODELS[2:])
FORECAST_MODELS = ("seasonal_naive", "random_walk", "exponential_smoothing", "linear", "gru", "attention", "s4d")
REGRESS_MODELS = ("median", "annotated_transitions", *MODELS[2:])
"""What is compared where nobody names models: on symbols, on real values, several steps ahead, and of numbers told."""
BASELINE = {**TRIVIAL, "classify": "majority"}


def check_names(names: list[str]) -> None:
    """ConfigError where a name is no model, before any data are read."""
    for name in names:
        if name != ALL and name not in BASELINE.values():
            check_model(name)


def chosen(given: list[str], loaded: Loaded, kind: str) -> tuple[list[str], list[str]]:
    """Names of the models of a comparison, the trivial one among them, and what is left out, in sentences."""
    notes: list[str] = []
    names: list[str] = []
    for name in given or _usual(loaded, kind):
        if name == ALL:
            every, notes = _every(loaded)
            names += every
        else:
            names.append(name)
    names = [name for name in dict.fromkeys(names) if name != "majority"]
    if kind != "classify" and BASELINE[kind] not in names:
        names.insert(0, BASELINE[kind])
    return names, notes


def _usual(loaded: Loaded, kind: str) -> tuple[str, ...]:
    """The models for data that nobody named any for."""
    if kind == "regress":
        return REGRESS_MODELS
    if not loaded.prepared.sizes.values:
        return MODELS
    if kind == "forecast":
        return FORECAST_MODELS
    return VALUE_MODELS if kind == "values" else VALUE_MODELS[2:]


def _every(loaded: Loaded) -> tuple[list[str], list[str]]:
    """Every recipe, classical model and mixer that suits the data, and why others are left out."""
    names: list[str] = []
    unsuited: list[str] = []
    notes: list[str] = []
    for shelf in ("recipes", "models/classical", "mixers"):
        for name in discovery.names(shelf):
            try:
                if shelf == "mixers" and (other := vars(mixers.get(name)).get("same_as")):
                    notes.append(f"{name} is left out: with its default options it is {other}")
                    continue
                (names if _suits(shelf, name, loaded) else unsuited).append(name)
            except MissingExtra as missing:
                notes.append(f"{name} is left out: {missing}")
            except ConfigError:
                unsuited.append(name)
    if unsuited:
        notes.append(f"models that these data cannot have are left out: {', '.join(unsuited)}")
    return names, notes


def _suits(shelf: str, name: str, loaded: Loaded) -> bool:
    """Whether a model can be asked what these data ask. MissingExtra, ConfigError: it cannot even be described."""
    run, sizes = loaded.run(name), loaded.prepared.sizes
    part: Any = discovery.get(shelf, name) if shelf != "recipes" else None
    if shelf == "models/classical":
        if sizes.values and run.task == "classify":
            return False
        want = "regress" if run.task == "regress" else "values" if sizes.values else "next"
        return want in part.tasks
    if shelf == "mixers":
        return run.task == "classify" or part.traits(part.Config()).causal in ("exact", "fft")
    return True
