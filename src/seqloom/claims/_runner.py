"""Runs claims: every arm for every seed, finished arms cached, results as JSON.

An arm is cached under the hash of its configuration, its seed and the code that it reaches. ``results/<id>.json``:
schema, id, version, machine, date, code hash, seeds, arms {arm: {metric: [one a seed]}}, findings.
"""

import datetime
import inspect
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from seqloom.claims._base import Arm, Claim, Count, Finding
from seqloom.core import discovery
from seqloom.core.errors import FINDING_FALSE, OK, CheckpointError, ConfigError
from seqloom.core.files import check_writable, inside, read_json, write_json
from seqloom.core.fingerprint import code_hash, config_hash, part_files
from seqloom.core.lock import alone
from seqloom.core.protocols import Progress, Silent
from seqloom.training.run import Run
from seqloom.training.train import measure

SCHEMA = 1


@dataclass(frozen=True)
class Judged:
    """A finding over all seeds: it holds if it holds on each; the value shown is the worst seed's."""

    text: str
    value: float
    op: str
    threshold: float
    worst_seed: int
    holds: bool


@dataclass(frozen=True)
class ClaimResult:
    """What a claim showed."""

    id: str
    seeds: tuple[int, ...]
    arms: dict[str, dict[str, list[float]]]
    findings: tuple[Judged, ...]
    document: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """0 iff every finding holds on every seed."""
        return OK if all(finding.holds for finding in self.findings) else FINDING_FALSE


def run_claim(
    claim: str | Claim,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    jobs: int = 1,
    cache: Path | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> ClaimResult:
    """Run one claim.

    Args:
        claim: id, or the claim itself.
        seeds: each arm is trained once a seed.
        jobs: arms at once, each in a process of its own; what is timed runs alone, after the others.
        cache: folder of finished arms; None = run them all.
        out: folder in which ``<id>.json`` is written; None = nowhere.
        progress: where to tell how far it is.

    Raises:
        ConfigError: an unknown id, no seeds, no jobs, or findings that differ between seeds.
    """
    name, subject = _subject(claim)
    if not seeds:
        raise ConfigError("a claim needs at least one seed")
    if jobs < 1:
        raise ConfigError(f"a claim needs at least one job, not {jobs}")
    progress = progress or Silent()
    if out is not None:
        check_writable(inside(out, f"{name}.json"))
    arms = subject.arms()
    progress.stage(f"claim {name}", len(arms) * len(seeds), "arm")
    measured: dict[str, dict[int, Mapping[str, float]]] = {arm: {} for arm in arms}
    for arm, seed, metrics in _metrics(claim, seeds, cache, jobs):
        measured[arm][seed] = metrics
        progress.advance(1, {"arm": arm, "seed": seed})
    findings = _judge(subject, measured, seeds)
    table = {arm: _columns(rows, seeds) for arm, rows in measured.items()}
    document = _document(name, subject, seeds, table, findings)
    if out is not None:
        write_json(out / f"{name}.json", document)
    return ClaimResult(name, tuple(seeds), table, findings, document)


def stale(claim: str, results: Path) -> bool:
    """True where a claim has no result, or its code has changed since."""
    path = results / f"{claim}.json"
    if not path.exists():
        return True
    return read_json(path).get("code") != claim_hash(_subject(claim)[1])


def claim_hash(subject: Claim) -> str:
    """Hash of all that a claim's result depends on."""
    documents = [_config(what) for what in subject.arms().values()]
    return code_hash([Path(inspect.getfile(type(subject))), *part_files(documents)])


def _subject(claim: str | Claim) -> tuple[str, Claim]:
    if isinstance(claim, Claim):
        return Path(inspect.getfile(type(claim))).stem, claim
    kind: Any = discovery.get("claims", claim)
    return claim, kind()


def _config(what: Run | Count) -> dict[str, Any]:
    return what.to_json() if isinstance(what, Run) else dict(what.config)


def _metrics(
    claim: str | Claim, seeds: Sequence[int], cache: Path | None, jobs: int
) -> Iterator[tuple[str, int, Mapping[str, float]]]:
    """Arm, seed and metrics as they are done."""
    name, subject = _subject(claim)
    arms = subject.arms()
    if jobs == 1:
        for seed in seeds:
            for arm, what in arms.items():
                yield arm, seed, _arm(subject, name, arm, what, seed, cache)
        return
    together = [(arm, seed) for seed in seeds for arm, what in arms.items() if not _timed(what)]
    with ProcessPoolExecutor(min(jobs, len(together) or 1), mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(_worker, claim, arm, seed, cache): (arm, seed) for arm, seed in together}
        try:
            for done in as_completed(waiting):
                yield *waiting[done], done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # the first error ends it: what is running is finished
    for seed in seeds:
        for arm, what in arms.items():
            if _timed(what):
                yield arm, seed, _arm(subject, name, arm, what, seed, cache)


def _worker(claim: str | Claim, arm: str, seed: int, cache: Path | None) -> Mapping[str, float]:
    """One arm and seed; what it measures cannot travel between processes, its name can."""
    name, subject = _subject(claim)
    return _arm(subject, name, arm, subject.arms()[arm], seed, cache)


def _timed(what: Run | Count) -> bool:
    return isinstance(what, Count) and what.timed


def _arm(subject: Claim, claim: str, arm: str, what: Run | Count, seed: int, cache: Path | None) -> Mapping[str, float]:
    """Metrics of one arm and seed, from the cache where nothing that decides them has changed."""
    key = config_hash({"claim": claim, "arm": arm, "seed": seed, "config": _config(what), "code": claim_hash(subject)})
    if cache is None:
        return _measured(what, seed)
    path = cache / inside(Path(), claim) / inside(Path(), _file_name(f"{arm}-{seed}-{key[:16]}.json"))
    with alone(path.parent, name=f".{path.name}.lock", mend="choose another folder with --cache"):
        with suppress(CheckpointError):  # a damaged one is no result: the arm is run again
            if path.exists():
                return _figures(read_json(path), path)
        metrics = _measured(what, seed)
        if all(map(math.isfinite, metrics.values())):
            write_json(path, metrics)  # what is not a number has no JSON form, and is worth another look anyway
    return metrics


def _measured(what: Run | Count, seed: int) -> dict[str, float]:
    got = what.measure(seed) if isinstance(what, Count) else measure(replace(what, seed=seed))
    return {metric: float(value) for metric, value in got.items()}


def _figures(document: Any, path: Path) -> dict[str, float]:
    """Metrics as they were written; CheckpointError where it is something else."""
    if not isinstance(document, dict) or not all(isinstance(value, int | float) for value in document.values()):
        raise CheckpointError(f"{path} holds no figures: it was edited. Remove it, and the arm is run again")
    return document


def _file_name(text: str) -> str:
    """An arm may be called anything; the hash in its name keeps the names apart."""
    return "".join(letter if letter.isalnum() or letter in "-_.=+" else "_" for letter in text)


def _judge(
    subject: Claim, measured: Mapping[str, Mapping[int, Mapping[str, float]]], seeds: Sequence[int]
) -> tuple[Judged, ...]:
    by_seed: list[list[Finding]] = []
    for seed in seeds:
        got = {arm: Arm(arm, rows[seed]) for arm, rows in measured.items()}
        by_seed.append(list(subject.findings(got)))
    if not by_seed[0] or any([f.text for f in each] != [f.text for f in by_seed[0]] for each in by_seed):
        raise ConfigError("a claim's findings must be some, and the same ones for every seed")
    judged = []
    for each in zip(*by_seed, strict=True):
        worst = min(range(len(seeds)), key=lambda k: each[k].margin)
        holds = all(finding.holds for finding in each)
        judged.append(Judged(**asdict(each[worst]), worst_seed=seeds[worst], holds=holds))
    return tuple(judged)


def _columns(rows: Mapping[int, Mapping[str, float]], seeds: Sequence[int]) -> dict[str, list[float]]:
    metrics = rows[seeds[0]].keys()
    return {metric: [rows[seed][metric] for seed in seeds] for metric in metrics}


def _document(
    name: str, subject: Claim, seeds: Sequence[int], arms: dict[str, dict[str, list[float]]], findings: Sequence[Judged]
) -> dict[str, Any]:
    document = {
        "schema": SCHEMA,
        "id": name,
        "version": version("seqloom"),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "date": datetime.date.today().isoformat(),
        "code": claim_hash(subject),
        "source": asdict(subject.source),
        "statement": subject.statement,
        "paper": subject.paper,
        "here": subject.here,
        "seeds": list(seeds),
        "arms": arms,
        "findings": [asdict(finding) for finding in findings],
    }
    return json.loads(json.dumps(_finite(document), allow_nan=False))


def _finite(value: Any) -> Any:
    """None in place of what is not finite: JSON has no other word for it, and the finding fails all the same."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
