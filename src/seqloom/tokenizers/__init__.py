"""Floor 2: from sequences to ids and back, one file a tokenizer."""

from typing import Any

from seqloom.core.discovery import shelf_of

names, get = shelf_of(__name__)


def default_tokenizer(sequences: Any) -> str:
    """Name of the tokenizer that suits the sequences, judged by their kind and alphabet."""
    from seqloom.tokenizers._default import choose

    return choose(sequences)
