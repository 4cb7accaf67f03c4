"""Write new sequences, from nothing or from prompts."""

from dataclasses import dataclass

from seqloom.cli._flags import File, Model
from seqloom.cli._terminal import Terminal


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Write new sequences with a model, from nothing or from prompts.

    Example:
        seqloom generate m --n 3 --limit 20 --temperature 0.8
    """

    model: Model
    """Folder that fit wrote."""
    n: int = 1
    """How many; with prompts, how many for each."""
    prompts: File = None
    """File of sequences to go on from; - for stdin, or sample:NAME."""
    prompt: str | None = None
    """One sequence to go on from; symbols of an event log are separated by spaces."""
    limit: int = 200
    """Most new symbols of one sequence."""
    temperature: float = 1.0
    """Below 1 likelier, above 1 wilder; 0 = always the likeliest symbol."""
    top_k: int = 0
    """Draw from so many likeliest symbols; 0 = all."""
    top_p: float = 1.0
    """Draw from the likeliest symbols that hold this share of the probability."""
    attention: str | None = None
    """hip: attention layers read only what a tree search finds, for long sequences; nothing is trained."""
    keys: int = 512
    """How many keys that search may find."""
    seed: int = 7
    """The same seed gives the same sequences."""
    to: File = None
    """Write .csv, .tsv, .parquet or .jsonl."""
    json: bool = False
    """One JSON object on stdout."""

    def run(self) -> int:
        """Generate."""
        terminal = Terminal(as_json=self.json)
        from seqloom.app.fitted import load

        fitted = load(self.model)
        if self.attention is not None:
            from seqloom.app.attention import use_attention

            use_attention(fitted, self.attention, self.keys)
        frame = fitted.generate(
            self.n,
            prompts=self.prompts if self.prompt is None else fitted.reading(self.prompt),
            limit=self.limit,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=self.seed,
        )
        if self.to is None and not self.json and terminal.out.is_terminal:
            for id, sequence, ended in frame.iter_rows():
                terminal.note(f"{id}{'' if ended else ' (cut at the limit)'}")
                terminal.say(sequence)
        else:
            terminal.frame(frame, self.to)
        return 0
