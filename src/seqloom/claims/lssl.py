"""Claim: one linear state-space layer is a recurrence, a convolution, and a continuous system that changes its rate.

Four parts. (a) For each rule the recurrence step by step, the convolution and the readout of the Krylov matrix give the
same outputs. (b) A inside the inverse of a tridiagonal matrix, applied by tridiagonal solves, is its dense form. (c) A
network trained on digits of 256 steps reads every other step: with the rate of its layers set to 2, and with nothing
changed. The 256 steps are made in two ways: every pixel as a block of 2 x 2, and every one of 64 steps held four times.
(d) LSSL-fixed (A and the steps frozen) against an LSTM with as many parameters, steps and examples on digits of 1024
steps.

(a) and (b) are exact; of (c) and (d) the paper has larger forms (raw speech at half its rate, images pixel by pixel).
The thresholds are those of the specification of the claim, written down before anything ran. Seen on two seeds:

    (a)  at most 2e-14        (b)  2e-15
    (c)  blocks   own rate 0.720, 0.718    told 0.700, 0.594    not told 0.098, 0.101
         held     own rate 0.831, 0.786    told 0.801, 0.793    not told 0.123, 0.101
    (d)  LSSL-fixed 0.647, 0.642    LSTM 0.106, 0.156, which is chance: it needs many times these steps

So ``blocks`` FAILS on the second seed: 0.123 are lost where 0.05 are allowed. There half the rate leaves one step a
pixel, which may be too coarse for the channels whose step is near 0.1; that was not looked into. Blocks ran first;
``held`` is the other reading of the specification's "nearest x4", added, with the same thresholds, after blocks had
been seen to fail.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from seqloom.claims._base import Claim, Count, Finding, Results, Source
from seqloom.data.batching import Batching
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged
from seqloom.data.synthetic.digits import Digits
from seqloom.kernels.krylov import krylov
from seqloom.mixers._base import Mixer
from seqloom.mixers.recurrent.lstm import LSTM
from seqloom.mixers.ssm import lssl as layers
from seqloom.mixers.ssm._quasiseparable import Discrete
from seqloom.models.backbone import Backbone
from seqloom.models.encoder import Encoder
from seqloom.objectives.classify import Classify
from seqloom.training.budget import Budget
from seqloom.training.loop import Loop
from seqloom.training.optimiser import AdamW
from seqloom.training.prepare import prepare
from seqloom.training.run import Run, Stopping

RULES = (0.0, 0.5, 1.0)
RATE, HELD = 2, 4


class LSSL(Claim):
    """Linear state-space layers: three views of one system."""

    source = Source(
        title="Combining recurrent, convolutional, and continuous-time models with linear state-space layers",
        authors="Gu, Johnson, Goel, Saab, Dao, Rudra and Ré",
        year=2021,
        arxiv="2110.13985",
    )
    statement = (
        "A linear state-space layer is the same map as a recurrence and as a convolution, follows a change of the "
        "sampling rate by its step alone, and learns long sequences that an LSTM does not."
    )
    paper = "sequential MNIST and CIFAR (784 and 1024 steps), raw speech of 16000 steps, widths 128 to 256"
    here = (
        "scikit-learn's digits as 256 and 1024 steps, 1200 training pictures, two layers, 400 and 300 steps of 16 "
        "pictures"
    )
    steps: Mapping[str, int] = {"rate": 400, "long": 300}
    repeat: Mapping[str, int] = {"blocks": 2, "held": 1, "long": 4}

    def arms(self) -> dict[str, Run | Count]:
        """Two that are counted, two that are trained and read at two rates, and two that are compared."""
        return {
            "identity": Count(identity, config={"part": "identity"}),
            "structure": Count(structured, config={"part": "structure"}),
            "blocks": self.resampled("blocks"),
            "held": self.resampled("held"),
            "lssl_fixed": self.long(layers.LSSL.Config(state=64, learn="none"), width=64),
            "lstm": self.long(LSTM.Config(), width=33),
        }

    def run(self, part: str, form: str, mixer: Mixer.Config, width: int) -> Run:
        """A classifier of digits without a channel mixer of its own, as in the paper."""
        return Run(
            data=Digits.Config(repeat=self.repeat[form]),
            task="classify",
            model=Encoder.Config(backbone=Backbone.Config(width=width, layers=2, mixers=(mixer,), mlp=None)),
            objective=Classify.Config(),
            batch=Batching(rows=16),
            optimiser=AdamW(lr=4e-3),
            budget=Budget(steps=self.steps[part]),
            stopping=Stopping(looks=4, patience=0),
        )

    def long(self, mixer: Mixer.Config, width: int) -> Run:
        """Part (d): the widths give both arms the same number of parameters."""
        return self.run("long", "long", mixer, width)

    def resampled(self, form: str) -> Count:
        """Part (c): one training, judged at its own rate and at half of it, with the layers told so and not."""
        run = self.run("rate", form, layers.LSSL.Config(), width=48)

        def measure(seed: int) -> Mapping[str, float]:
            own = replace(run, seed=seed)
            data = prepare(own)
            if form == "held":
                data = replace(data, train=held(data.train), valid=held(data.valid), test=held(data.test))
            loop = Loop(own, data)
            model = loop.run().model
            half = every_other(data.test)
            told = {"own": loop.evaluate(data.test)["accuracy"], "untold": loop.evaluate(half)["accuracy"]}
            for block in model.backbone.layers:
                block.mixer = block.mixer.resample(float(RATE))
            return {**told, "told": loop.evaluate(half)["accuracy"]}

        return Count(measure, config={"part": form, "run": run.to_json()})

    def findings(self, got: Results) -> Iterator[Finding]:
        """Identities to float64's rounding, the two rates, and the comparison."""
        for alpha in RULES:
            worst = got["identity"][f"alpha_{alpha:g}"]
            yield Finding(f"recurrence, convolution and Krylov differ, alpha {alpha:g}", worst, "<=", 1e-9)
        yield Finding("the tridiagonal form differs from the dense one", got["structure"].worst, "<=", 1e-8)
        for form in ("blocks", "held"):
            own, told, untold = (got[form][name] for name in ("own", "told", "untold"))
            yield Finding(f"{form}: accuracy lost at half the rate, the steps doubled", own - told, "<=", 0.05)
            yield Finding(f"{form}: accuracy lost at half the rate, nothing changed", own - untold, ">=", 0.15)
        fixed, lstm = got["lssl_fixed"], got["lstm"]
        share = abs(fixed.used_parameters / lstm.used_parameters - 1)
        yield Finding("difference in parameters between LSSL-fixed and the LSTM", share, "<=", 0.05)
        yield Finding("accuracy of LSSL-fixed above the LSTM's", fixed.accuracy - lstm.accuracy, ">=", 0.15)


def identity(seed: int) -> Mapping[str, float]:
    """Largest difference over the largest output between the three views, in float64, by rule."""
    return {f"alpha_{alpha:g}": _views(alpha, seed) for alpha in RULES}


def _views(alpha: float, seed: int) -> float:
    """257 positions, the recurrence in single steps; Euler's rule is stable at these steps."""
    worst = 0.0
    for memory in ("legs", "legt"):
        torch.manual_seed(seed)
        options = layers.LSSL.Config(
            memory=memory, alpha=alpha, steps=(1e-3, 8e-3), outputs=2, activation="none", output="linear", state=24
        )
        mixer = layers.LSSL(4, options).double()
        x_BTD = torch.randn(2, 257, 4, dtype=torch.float64)
        with torch.no_grad():
            whole_BTD = mixer(x_BTD)[0]
            state, pieces = mixer.initial_state(2), []
            for x_B1D in x_BTD.split(1, 1):
                y_B1D, state = mixer(x_B1D, state)
                pieces.append(y_B1D)
            stepped_BTD, by_hand_BTD = torch.cat(pieces, 1), _by_krylov(mixer, x_BTD)
        largest = float(whole_BTD.abs().max())
        worst = max(worst, *(float((one - whole_BTD).abs().max()) / largest for one in (stepped_BTD, by_hand_BTD)))
    return worst


def _by_krylov(mixer: layers.LSSL, x_BTD: Tensor) -> Tensor:
    """C K(A, B) as one matrix, and the convolution as a sum over lags."""
    system, T = mixer.discrete(), x_BTD.shape[1]
    X_DNT = krylov(system.dense(), system.input()[..., None], T)[..., 0]
    k_DMT = mixer.readout[0] @ X_DNT
    lag_TT = torch.arange(T)[:, None] - torch.arange(T)
    toeplitz_DMTT = torch.where(lag_TT >= 0, k_DMT[..., lag_TT.clamp_min(0)], 0)
    y_BTM = torch.einsum("dmts,bsd->btdm", toeplitz_DMTT, x_BTD).flatten(2)
    return mixer.after(y_BTM + mixer.skip * mixer.spread(x_BTD))


def structured(seed: int) -> Mapping[str, float]:
    """A-bar by tridiagonal solves against its formula with the dense A, after the parameters have moved."""
    worst = 0.0
    for memory in ("legs", "legt"):
        for alpha in RULES:
            torch.manual_seed(seed)
            mixer = layers.LSSL(
                3, layers.LSSL.Config(state=64, memory=memory, alpha=alpha, learn="channel", steps=(1e-3, 1e-3))
            )
            with torch.no_grad():
                for name in mixer.timing:
                    value = mixer.get_parameter(name)
                    value.add_(0.02 * torch.randn_like(value))
            worst = max(worst, _against_dense(mixer.double().discrete()))
    return {"worst": worst}


@torch.no_grad()
def _against_dense(system: Discrete) -> float:
    A_DNN, step_D11 = system.structure.dense(), system.step_D[:, None, None]
    one_NN = torch.eye(A_DNN.shape[1], dtype=A_DNN.dtype)
    left_DNN = one_NN - system.alpha * step_D11 * A_DNN
    want_DNN = torch.linalg.solve(left_DNN, one_NN + (1 - system.alpha) * step_D11 * A_DNN)
    want_DN = torch.linalg.solve(left_DNN, step_D11[..., 0] * system.structure.input_GN)
    pairs = ((system.dense(), want_DNN), (system.input(), want_DN))
    return max(float((got - want).abs().max() / want.abs().max()) for got, want in pairs)


def every_other(whole: Examples) -> Examples:
    """The same pictures, every other step left out."""
    return _changed(whole, lambda steps: steps[::RATE])


def held(whole: Examples) -> Examples:
    """The same pictures, every step held four times."""
    return _changed(whole, lambda steps: np.repeat(steps, HELD, 0))


def _changed(whole: Examples, change: Callable[[np.ndarray], np.ndarray]) -> Examples:
    rows = [change(example.values) for example in whole if example.values is not None]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    targets = [example.target for example in whole]
    return Examples(None, targets, values=Ragged(np.concatenate(rows), offsets), opens=whole.opens, closes=whole.closes)
