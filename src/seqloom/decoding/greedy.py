"""The most probable token at every step.

    y_t = argmax_v l_v        of equal logits the lowest id

Shapes: B hypotheses, V vocabulary.
"""

from collections.abc import Sequence

from torch import Tensor

from seqloom.core.batch import Batch
from seqloom.core.protocols import Stepper
from seqloom.decoding._base import Decoder, Processor, Stop, Stream
from seqloom.decoding._engine import Task, search
from seqloom.decoding._hypotheses import Hypotheses


class Greedy(Decoder):
    """Writes what is most probable, token by token: fast, deterministic, and prone to loops."""

    def stream(
        self,
        stepper: Stepper,
        batch: Batch,
        *,
        limit: int,
        seed: int = 0,
        processors: Sequence[Processor] = (),
        stop: Stop | None = None,
    ) -> Stream:
        """Continue the rows of a batch; ``seed`` changes nothing."""
        return search(Task.of(self, stepper, batch, limit, seed, stop).adding(processors), _best)


def _best(scores_BV: Tensor, hypotheses: Hypotheses) -> Tensor:
    return scores_BV.argmax(1)
