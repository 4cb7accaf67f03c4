"""The contract of mixers, for our own and for those of other packages.

    check_mixer(MyMixer.Config(state=16))        raises a Finding that says what is broken

Each check is a function of a Subject. A mixer that honestly cannot pass one says so, with the reason, in
``Traits.known_gaps``; a gap that passes after all is an error too.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import cast

from seqloom import mixers
from seqloom.core.errors import ConfigError
from seqloom.mixers._base import Mixer
from seqloom.testing import _mixer_numbers, _mixer_rows, _mixer_state
from seqloom.testing._subject import Finding, Subject

Check = Callable[[Subject], None]

CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        _mixer_numbers.declaration,
        _mixer_rows.continuation,
        _mixer_rows.lengths,
        _mixer_rows.blocks,
        _mixer_rows.capacity,
        _mixer_rows.causality,
        _mixer_rows.packing,
        _mixer_rows.padding,
        _mixer_rows.positions,
        _mixer_rows.batch,
        _mixer_rows.tree,
        _mixer_rows.exchange,
        _mixer_state.select,
        _mixer_state.fork,
        _mixer_state.rollback,
        _mixer_state.state_bytes,
        _mixer_state.purity,
        _mixer_numbers.gradcheck,
        _mixer_numbers.bfloat16,
        _mixer_numbers.extremes,
        _mixer_numbers.initial_scale,
        _mixer_numbers.determinism,
        _mixer_numbers.compilation,
        _mixer_numbers.flops,
        _mixer_numbers.refusals,
        _mixer_numbers.linearity,
    )
}
"""Every check by its name, which is also the key of ``Traits.known_gaps``."""


def check_mixer(
    config: Mixer.Config,
    width: int = 8,
    *,
    checks: Iterable[str] | None = None,
    full: bool = False,
    device: str = "cpu",
) -> dict[str, str]:
    """Check a mixer against the contract.

    Args:
        config: the options to check.
        width: width of the inputs.
        checks: names from ``CHECKS``; None = all.
        full: every length, and every derivative against finite differences one by one.
        device: where to run.

    Returns:
        Check -> "holds", or the reason of a declared gap.

    Raises:
        Finding: names every broken check and what was seen.
        ConfigError: an unknown check.
    """
    subject = Subject(config, width, full, device)
    wanted = list(CHECKS) if checks is None else list(checks)
    if unknown := [name for name in wanted if name not in CHECKS]:
        raise ConfigError(f"no check is called {unknown[0]!r}; there are {', '.join(CHECKS)}")
    gaps = dict(subject.traits.known_gaps)
    for name, reason in gaps.items():
        if name not in CHECKS or not reason.strip():
            raise Finding(f"known_gaps: {name!r} needs the name of a check and a reason")
    verdicts, broken = {}, {}
    for name in wanted:
        problem = _run(CHECKS[name], subject)
        if name in gaps and problem is None:
            broken[name] = Finding("is declared as a gap but holds: take it out of known_gaps")
        elif problem is not None and name not in gaps:
            broken[name] = problem
        verdicts[name] = gaps.get(name, "holds")
    if broken:
        lines = [f"  {name}: {type(error).__name__}: {error}" for name, error in broken.items()]
        owner = config.owner.__name__
        raise Finding("\n".join([f"{owner} breaks the contract with {config}", *lines])) from next(
            iter(broken.values())
        )
    return verdicts


def options(name: str | None = None) -> Iterator[tuple[str, Mixer.Config]]:
    """(label, options) of one mixer, or of every discovered one: its whole grid, the default options first."""
    for mixer in [name] if name is not None else mixers.names():
        kind = cast(type[Mixer], mixers.get(mixer))
        for number, config in enumerate(kind.grid()):
            yield f"{mixer}-{number}" if number else mixer, config


def _run(check: Check, subject: Subject) -> Exception | None:
    """What a check raised: a broken mixer may raise anything at all."""
    try:
        check(subject)
    except Exception as error:
        return error
    return None
