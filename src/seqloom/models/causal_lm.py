"""A causal language model over any mixer.

    h_0 = embed(tokens) (+ position) (+ W values)     h_L = backbone(h_0)     logits = h_L W_out^T (capped softly)

Shapes: B batch, T time, D width, V vocabulary, C channels.
Source: Radford et al., "Language models are unsupervised multitask learners", 2019, for the shape of the model.
"""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from seqloom.core.errors import ConfigError
from seqloom.core.sizes import Sizes
from seqloom.layers.linear import Linear
from seqloom.models._causal import Causal
from seqloom.models._input import SMALL, Input
from seqloom.models.backbone import Backbone


class CausalLM(Causal):
    """Distribution of the next symbol after every position."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Causal.Config):
        """Ends of the model."""

        backbone: Backbone.Config = field(default_factory=Backbone.Config)
        """The stack between embedding and head."""
        tie: bool = True
        """The head shares the embedding's matrix."""
        positions: int = 0
        """Learned absolute positions up to this length; 0 = none (most mixers know the order)."""
        dropout: float = 0.0
        """Rate on the embedding."""
        cap: float = 0.0
        """Logits are cap tanh(logits / cap) (xLSTM 7B, RecurrentGemma); 0 = as they are."""
        unpredicted: tuple[int, ...] = ()
        """Ids that never follow anything: their logits are -inf (specials that an imported model does not know)."""

    def __init__(self, sizes: Sizes, config: Config | None = None) -> None:
        """Raises ConfigError for a vocabulary without symbols."""
        super().__init__(sizes, config)
        if sizes.vocabulary < 1:
            raise ConfigError("a causal language model needs a vocabulary")
        width = self.config.backbone.width
        # small embeddings are drowned by the first layer's output; only a head that shares them needs them small
        std = SMALL if self.config.tie else 1.0
        self.input = Input(sizes, width, self.config.positions, self.config.dropout, std)
        self.backbone: Backbone = self.config.backbone.build()
        self.head = Linear(width, sizes.vocabulary, bias=False)
        nn.init.normal_(self.head.weight, std=SMALL)
        self.tie()

    def tie(self) -> None:
        """Let the head share the embedding's matrix, if the options say so."""
        if self.config.tie and self.input.embedding is not None:
            self.head.weight = self.input.embedding.weight

    def told(self, h_BTD: Tensor, values_BTC: Tensor | None) -> dict[str, Any]:
        """``logits`` (B, T, V), computed when somebody looks."""
        return {"logits": partial(self.logits, h_BTD)}

    def logits(self, h_BTD: Tensor) -> Tensor:
        """What follows each position, unnormalised (B, T, V)."""
        logits_BTV = self.head(h_BTD)
        if self.config.cap:
            logits_BTV = self.config.cap * torch.tanh(logits_BTV / self.config.cap)
        if torch.compiler.is_compiling():
            for token in self.config.unpredicted:
                logits_BTV[..., token] = -torch.inf
        elif self.config.unpredicted:
            logits_BTV.index_fill_(-1, _ids(self.config.unpredicted, logits_BTV.device), -torch.inf)
        return logits_BTV


@lru_cache(maxsize=64)
def _ids(tokens: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(tokens, device=device)
