"""One next-symbol model a class, turned round by Bayes: a classifier of sequences out of any classical model.

    log p(k | x) = log p(k) + b log p(x | k) - log Z          x with its end symbol

With b = 1 this is Bayes' rule, which is far too sure of itself where the models of the classes are only roughly right:
errors add up along a sequence. With validation data b in (0, 1] is the one under which its classes are most probable.
Shapes: N sequences, C classes.
Source: Peng, Schuurmans and Wang, "Augmenting naive Bayes classifiers with statistical language models", 2004, for
the rule; Guo et al., 2017, arXiv:1706.04599, section 4.2, for one scale learnt on validation data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from seqloom.core.errors import CheckpointError
from seqloom.core.protocols import Progress
from seqloom.core.sizes import Sizes
from seqloom.data.ragged import Ragged
from seqloom.models.classical._base import ClassicalModel
from seqloom.models.classical._classifier import ClassicalClassifier
from seqloom.models.classical.ngram import Ngram

SCALES = np.geomspace(1e-3, 1.0, 61)


class ClassConditional(ClassicalClassifier):
    """The class under which the sequence is most probable."""

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassicalClassifier.Config):
        """The model of each class and how its word is weighed."""

        model: ClassicalModel.Config = field(default_factory=Ngram.Config)
        """Next-symbol model, built anew for each class."""
        calibrate: bool = True
        """With validation data, choose b; False, or no such data: b = 1."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """ConfigError without classes or symbols."""
        super().__init__(sizes, config)
        self.models: list[ClassicalModel] = [self.config.model.build(sizes) for _ in range(sizes.classes)]
        self.scale = 1.0

    def predict_log_proba(self, ragged: Ragged) -> np.ndarray:
        self._check_fitted()
        return self._posterior(self._likelihoods(ragged), self.scale)

    def arrays(self) -> dict[str, np.ndarray]:
        self._check_fitted()
        inner = {f"{k}/{name}": array for k, model in enumerate(self.models) for name, array in model.arrays().items()}
        return {"classes": self.count_C, "scale": np.array([self.scale]), **inner}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._load_counts(arrays)
        scale = np.asarray(arrays.get("scale", ()), np.float64)
        if scale.shape != (1,) or not 0 < scale[0] <= 1:
            raise CheckpointError("the saved scale of a class_conditional lies in (0, 1]: save the model again")
        self.scale = float(scale[0])
        for k, model in enumerate(self.models):
            start = f"{k}/"
            model.load({name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)})
        self.fitted = True

    @property
    def held_parameters(self) -> int:
        return self.sizes.classes + 1 + sum(model.held_parameters for model in self.models)

    def _learn(
        self, ragged: Ragged, labels_N: np.ndarray, valid: tuple[Ragged, np.ndarray] | None, progress: Progress
    ) -> None:
        for k, model in enumerate(self.models):
            held = None if valid is None else valid[0].select(valid[1] == k)
            model.fit(ragged.select(labels_N == k), held, progress=progress)
        self.scale = 1.0
        if valid is not None and self.config.calibrate:
            likely_NC, at = self._likelihoods(valid[0]), np.arange(len(valid[1]))
            gains = [self._posterior(likely_NC, scale)[at, valid[1]].sum() for scale in SCALES]
            self.scale = float(SCALES[int(np.argmax(gains))])

    def _likelihoods(self, ragged: Ragged) -> np.ndarray:
        scores = [model.token_log_probs(ragged) for model in self.models]
        # every sequence has at least its end symbol, so that no stretch is empty
        return np.stack([np.add.reduceat(score.flat, score.offsets[:-1]) for score in scores], 1)

    def _posterior(self, likely_NC: np.ndarray, scale: float) -> np.ndarray:
        joint_NC = self.log_prior_C + scale * likely_NC
        joint_NC = joint_NC - joint_NC.max(1, keepdims=True)
        return joint_NC - np.log(np.exp(joint_NC).sum(1, keepdims=True))
