"""Which tokenizer suits which sequences.

symbols -> symbols        dna, protein -> characters        text -> characters, or bytes above 512 of them
"""

from seqloom.core.errors import ConfigError
from seqloom.data.sequences import Sequences

MOST_CHARACTERS = 512


def choose(sequences: Sequences) -> str:
    """Name of the tokenizer."""
    if sequences.kind == "values":
        raise ConfigError("real values need no tokenizer: they go to the model as they are")
    if sequences.kind == "symbols":
        return "symbols"
    if sequences.alphabet in ("dna", "protein"):
        return "characters"
    from seqloom.tokenizers.characters import Characters

    return "characters" if len(Characters().fit(sequences).symbols) <= MOST_CHARACTERS else "bytes"
