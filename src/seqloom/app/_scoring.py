"""What a network says of whole data sets, with the conventions of the classical models.

    log p(x_1 | <bos>), .. , log p(<eos> | x_1 .. x_n)         n + opens + closes - 1 values a sequence

Sequences longer than the training window are scored in windows that overlap by half: every symbol beyond the first
window is predicted from at least half a window of its past.
Shapes: N sequences, B rows, T columns, V vocabulary, C channels, P predicted channels, K parameters, D width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqloom.core.layout import PLAIN, Layout
from seqloom.core.outputs import Outputs
from seqloom.core.specials import SPECIALS
from seqloom.data.examples import Examples
from seqloom.data.ragged import Ragged

COLUMNS = 8192
"""Columns of a scoring batch, padding included."""


@dataclass(frozen=True)
class Row:
    """One sequence with its ends put in: ids, values, or both."""

    tokens: np.ndarray | None
    values: np.ndarray | None

    def __len__(self) -> int:
        whole = self.values if self.tokens is None else self.tokens
        return 0 if whole is None else len(whole)

    def __getitem__(self, columns: slice) -> "Row":
        return Row(*(None if one is None else one[columns] for one in (self.tokens, self.values)))


@dataclass(frozen=True)
class Line:
    """A piece of one sequence as it goes to the model: columns [begin, end) of its inputs, counted from ``from_``."""

    sequence: int
    begin: int
    from_: int
    end: int


def rows_of(examples: Examples, *, whole: bool = False) -> list[Row]:
    """Every sequence with its ends put in; ``whole``: as if each opened and closed, as classifiers read them."""
    bos, eos = (np.array([id], np.int64) for id in (SPECIALS.bos, SPECIALS.eos))
    made = []
    for example in examples:
        before, after = example.opens or whole, example.closes or whole
        tokens = None
        if examples.tokens is not None:
            tokens = np.concatenate([bos[:before], example.tokens, eos[:after]]).astype(np.int64)
        values = example.values
        if values is not None:
            ends = np.zeros((1, values.shape[1]), values.dtype)
            values = np.concatenate([ends[:before], values, ends[:after]])
        made.append(Row(tokens, values))
    return made


def cuts(targets: int, window: int, sequence: int) -> Iterator[Line]:
    """Pieces that count every target once and see at least half a window before it."""
    if not window or targets <= window:
        yield Line(sequence, 0, 0, targets)
        return
    half = max(window // 2, 1)
    yield Line(sequence, 0, 0, window)
    for start in range(window, targets, half):
        yield Line(sequence, start + half - window, start, min(start + half, targets))


def batches(pieces: list[Line]) -> Iterator[list[Line]]:
    """Pieces of like lengths together."""
    order = sorted(pieces, key=lambda line: line.begin - line.end)
    at = 0
    while at < len(order):
        most = max(1, COLUMNS // max(order[at].end - order[at].begin, 1))
        yield order[at : at + most]
        at += most


def answers(model: Any, rows: list[Row], pieces: list[Line]) -> Iterator[tuple[list[Line], Outputs]]:
    """The model's outputs on every batch of pieces, padded on the right."""
    for group in batches(pieces):
        own = [rows[p.sequence][p.begin : p.end] for p in group]
        lengths = [len(row) for row in own]
        shape = (len(own), max(lengths))
        tokens_BT = None if own[0].tokens is None else np.full(shape, SPECIALS.pad, np.int64)
        values_BTC = None if own[0].values is None else np.zeros((*shape, own[0].values.shape[1]), np.float32)
        for number, row in enumerate(own):
            for padded, given in ((tokens_BT, row.tokens), (values_BTC, row.values)):
                if padded is not None and given is not None:
                    padded[number, : len(given)] = given
        even = min(lengths) == max(lengths)
        layout = PLAIN if even else Layout(lengths_B=torch.tensor(lengths, device=model.device))
        yield group, model(_on(tokens_BT, model), layout=layout, values_BTC=_on(values_BTC, model))[0]


def _on(array: np.ndarray | None, model: Any) -> Tensor | None:
    return None if array is None else torch.from_numpy(array).to(model.device)


def predictive(logits: Tensor, unseen: float | None) -> Tensor:
    """Log-probabilities over what can follow: no pads, and the mass of <unk> where training never saw one.

    ``unseen`` is the share of symbols that were seen once in training, the estimate of Good (1953) for what comes new.
    """
    logits = logits.float().clone()
    logits[..., list(SPECIALS.unpredictable)] = -torch.inf
    if unseen is None:
        return logits.log_softmax(-1)
    logits[..., SPECIALS.unk] = -torch.inf
    known = logits.log_softmax(-1) + float(np.log1p(-unseen))
    known[..., SPECIALS.unk] = float(np.log(unseen))
    return known


@torch.no_grad()
def token_log_probs(model: Any, examples: Examples, *, window: int, unseen: float | None) -> tuple[Ragged, Ragged]:
    """Natural log-probability of every predicted symbol, and whether it was the likeliest."""
    rows, pieces, offsets = _pieces(examples, window)
    log_p, hit = np.zeros(offsets[-1]), np.zeros(offsets[-1], bool)
    for group, outputs in answers(model, rows, pieces):
        log_BTV = predictive(outputs.logits, unseen).cpu()
        best_BT = log_BTV.argmax(-1).numpy()
        for row, p in enumerate(group):
            skip, width = p.from_ - p.begin, p.end - p.begin
            target = _tokens(rows[p.sequence])[p.from_ + 1 : p.end + 1]
            at = slice(offsets[p.sequence] + p.from_, offsets[p.sequence] + p.end)
            log_p[at] = log_BTV[row, torch.arange(skip, width), torch.from_numpy(target)].numpy()
            hit[at] = best_BT[row, skip:width] == target
    return Ragged(log_p, offsets), Ragged(hit, offsets)


@torch.no_grad()
def value_distributions(model: Any, examples: Examples, *, window: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Distribution of every predicted step (L, P, K), what came (L, P), and the offsets of the sequences (N + 1,)."""
    rows, pieces, offsets = _pieces(examples, window)
    sizes = model.sizes
    found = torch.zeros(int(offsets[-1]), sizes.values, model.head.parameters_each)
    came = torch.zeros(int(offsets[-1]), sizes.values)
    for group, outputs in answers(model, rows, pieces):
        own_BTPK = outputs["distribution"].cpu()
        for row, p in enumerate(group):
            at = slice(offsets[p.sequence] + p.from_, offsets[p.sequence] + p.end)
            found[at] = own_BTPK[row, p.from_ - p.begin : p.end - p.begin]
            came[at] = torch.from_numpy(_values(rows[p.sequence])[p.from_ + 1 : p.end + 1, : sizes.values])
    return found, came, offsets


@torch.no_grad()
def prefix_distributions(model: Any, examples: Examples, *, window: int) -> tuple[Tensor, np.ndarray]:
    """Distribution of one number after every symbol (L, K), and the offsets of the sequences (N + 1,).

    What is told at a column belongs to the symbol there, one column behind what is predicted of the next one.
    """
    rows, pieces, offsets = _pieces(examples, window)
    found = torch.zeros(int(offsets[-1]), model.head.parameters_each)
    shifted = [Line(p.sequence, p.begin, p.from_ + 1, p.end + 1) for p in pieces]
    for group, outputs in answers(model, rows, shifted):
        own_BTK = outputs["distribution"][:, :, 0].cpu()
        for row, p in enumerate(group):
            at = slice(offsets[p.sequence] + p.from_ - 1, offsets[p.sequence] + p.end - 1)
            found[at] = own_BTK[row, p.from_ - p.begin : p.end - p.begin]
    return found, offsets


@torch.no_grad()
def next_log_probs(model: Any, examples: Examples, *, window: int, unseen: float | None) -> Tensor:
    """Distribution after each sequence (N, V); only the last window of a longer one is read."""
    out = torch.zeros(len(examples), model.sizes.vocabulary)
    for at, picked in _last(model, examples, window, "logits"):
        out[at] = predictive(picked, unseen).cpu()
    return out


@torch.no_grad()
def next_distributions(model: Any, examples: Examples, *, window: int) -> Tensor:
    """Distribution of the value, or the number, after each sequence (N, P, K)."""
    out = torch.zeros(len(examples), model.head.channels, model.head.parameters_each)
    for at, picked in _last(model, examples, window, "distribution"):
        out[at] = picked.cpu()
    return out


def _last(model: Any, examples: Examples, window: int, name: str) -> Iterator[tuple[list[int], Tensor]]:
    """An output at the last position of each sequence, batch by batch."""
    whole = zip(rows_of(examples), examples.closes.tolist(), strict=True)
    rows = [row[: len(row) - closes] for row, closes in whole]
    rows = [row[-window:] if window else row for row in rows]
    if not all(map(len, rows)):  # an empty sequence that continues another one: as if it began
        opening = rows_of(examples, whole=True)
        rows = [row if len(row) else opening[i][:1] for i, row in enumerate(rows)]
    for group, outputs in answers(model, rows, [Line(i, 0, 0, len(row)) for i, row in enumerate(rows)]):
        last_B = torch.tensor([p.end - 1 for p in group], device=model.device)
        yield [p.sequence for p in group], outputs[name][torch.arange(len(group), device=model.device), last_B]


@torch.no_grad()
def pooled(model: Any, examples: Examples, *, window: int) -> np.ndarray:
    """Mean of the last layer over all positions, float32 (N, D)."""
    rows = rows_of(examples)
    pieces = [
        Line(i, at, at, min(at + (window or len(row)), len(row)))
        for i, row in enumerate(rows)
        for at in range(0, len(row), window or max(len(row), 1))
    ]
    sums, counts = np.zeros((len(rows), model.config.backbone.width)), np.zeros(len(rows))
    for group, outputs in answers(model, rows, pieces):
        hidden_BTD = outputs.hidden[-1].float().cpu().numpy()
        for row, p in enumerate(group):
            sums[p.sequence] += hidden_BTD[row, : p.end - p.begin].sum(0)
            counts[p.sequence] += p.end - p.begin
    return (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)


@torch.no_grad()
def class_log_probs(model: Any, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the classes (N, C) and the pooled vectors (N, D) of an encoder."""
    rows = rows_of(examples, whole=True)
    log_NC = np.zeros((len(rows), model.sizes.classes))
    pooled_ND = np.zeros((len(rows), model.config.backbone.width), np.float32)
    for group, outputs in answers(model, rows, [Line(i, 0, 0, len(row)) for i, row in enumerate(rows)]):
        at = [p.sequence for p in group]
        log_NC[at] = outputs.logits.double().log_softmax(-1).cpu().numpy()
        pooled_ND[at] = outputs["pooled"].float().cpu().numpy()
    return log_NC, pooled_ND


def _pieces(examples: Examples, window: int) -> tuple[list[Row], list[Line], np.ndarray]:
    """Rows, the pieces that predict every step once, and where each sequence's predictions lie."""
    rows = rows_of(examples)
    count_N = np.array([max(len(row) - 1, 0) for row in rows], np.int64)
    pieces = [piece for i, count in enumerate(count_N.tolist()) if count for piece in cuts(count, window, i)]
    return rows, pieces, np.concatenate([[0], np.cumsum(count_N)])


def _tokens(row: Row) -> np.ndarray:
    return row.tokens if row.tokens is not None else np.zeros(0, np.int64)


def _values(row: Row) -> np.ndarray:
    return row.values if row.values is not None else np.zeros((0, 0), np.float32)
