"""Train one model on a file, judge it on held-out data, save it."""

from dataclasses import dataclass, field

from seqloom.cli._flags import Data, DataFlags, File, Folder, From, Head, Name, Split, Target, Task
from seqloom.cli._terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Train one model on a file, judge it beside the trivial answer on held-out data, and save it.

    Example:
        seqloom fit sample:flights --model gru --budget 3s --out m
    """

    file: Data
    """File of sequences, - for stdin, or sample:NAME."""
    model: Name = None
    """Recipe, classical model, mixer, or a hybrid such as "s4d*3,attention" (seqloom list); default: attention."""
    out: Folder = None
    """Folder of the model; default: the file's name and the model's."""
    budget: str = "45s"
    """Of training: 45s, 5m, 1h, or 2000steps; reading and judging come on top."""
    seed: int = 7
    """Of the weights and the order of the data."""
    task: Task = "auto"
    """What is asked; auto: forecast with --horizon, regress with --target, classify with labels, else next."""
    horizon: int = 0
    """Task forecast: how many steps ahead it is judged on, and predicts."""
    target: Target = None
    """Task regress: what is told after every event: remaining (time until the last one), or the column whose value
    at the end it is."""
    resume: bool = False
    """Go on from the last checkpoint in the folder."""
    start: From = None
    """Folder of a network to go on from, on these data: its vocabulary, classes and sizes stay."""
    head: Head = "auto"
    """The kind of distribution that a network gives; auto: gaussian of real values, quantiles of a number."""
    test: File = None
    """File that is the test part."""
    split: Split = "auto"
    """How the held-out parts are chosen."""
    device: str = "auto"
    """auto, cpu or cuda."""
    dry_run: bool = False
    """Only say what it would cost: parameters, FLOPs, memory, time."""
    json: bool = False
    """One JSON object on stdout, everything for people on stderr."""
    data: DataFlags = field(default_factory=DataFlags)

    def run(self) -> int:
        """Train and report."""
        terminal = Terminal(as_json=self.json)
        from seqloom.app.data import is_large
        from seqloom.app.fit import fit
        from seqloom.app.plan import check_model
        from seqloom.kernels._memory import keep_pages

        name = self.model or ("attention" if self.start is None else "continued")
        if self.model is not None:
            check_model(self.model)
        source = self.data.source(self.file, split=self.split, test=self.test)
        if not is_large(source):
            keep_pages()
        if self.dry_run:
            return self._estimate(terminal, source)
        out = self.out or f"{source.name}-{name.replace('*', 'x').replace(',', '-')}"
        terminal.note(f"{name} on {self.file}, budget {self.budget}, seed {self.seed} -> {out}/")
        with terminal.progress() as progress:
            fitted = fit(
                source,
                self.model,
                task=self.task,
                head=self.head,
                horizon=self.horizon,
                target=self.target,
                budget=self.budget,
                seed=self.seed,
                out=out,
                resume=self.resume,
                device=self.device,
                start=self.start,
                progress=progress,
            )
        if self.json:
            terminal.give({"model": name, "out": out, "task": fitted.task, **_shown(fitted.metrics)})
        terminal.say(summary(name, out, fitted.metrics))
        return 0

    def _estimate(self, terminal: Terminal, source: object) -> int:
        from seqloom.app.estimate import estimate
        from seqloom.app.plan import load_data

        cost = estimate(
            load_data(source, task=self.task, head=self.head, horizon=self.horizon, target=self.target),
            self.model or "attention",
            budget=self.budget,
            device=self.device,
        )
        if self.json:
            terminal.give(cost.figures())
        terminal.say("\n".join(cost.lines()))
        return 0


def _shown(metrics: dict) -> dict:
    """The figures without what is kept for later data alone."""
    from seqloom.app.fitted import PROFILE

    return {name: value for name, value in metrics.items() if name != PROFILE}


def summary(model: str, out: str, metrics: dict) -> str:
    """What a fit came to, in three lines."""
    got, trivial = metrics["test"], metrics["trivial"]
    name = next(iter(got))  # the one that decides
    right = "inside their 80% interval" if name in ("bits_per_value", "mase", "mae") else "right"
    unit = {
        "mase": "times the error of repeating the last season",
        "mae": f"mean absolute error ({metrics.get('unit')})",
    }.get(name, name.replace("_", " "))
    return "\n".join(
        [
            f"{model}: {got[name]:.3f} {unit} on {got['counted']:,} held-out items, {got['accuracy']:.1%} {right}",
            f"trivial answer: {trivial[name]:.3f} {unit}, {trivial['accuracy']:.1%} {right}",
            f"saved in {out}/ (card.md says the rest); next: seqloom predict {out} FILE",
        ]
    )
