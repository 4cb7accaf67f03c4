"""Log-probabilities of whole data sets under a network, with the conventions of the classical models.

    log p(x_1 | <bos>), .. , log p(<eos> | x_1 .. x_n)         n + opens + closes - 1 values a sequence

Sequences longer than the training window are scored in windows that overlap by half: every symbol beyond the first
window is predicted from at least half a window of its past.
Shapes: B rows, T columns, V vocabulary, D width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqloom.core.layout import PLAIN, Layout
from seqloom.core.specials import SPECIALS
from seqloom.data.ragged import Ragged

COLUMNS = 8192
"""Columns of a scoring batch, padding included."""


@dataclass(frozen=True)
class Line:
    """A piece of one sequence as it goes to the model: columns [begin, end) of its inputs, counted from ``from_``."""

    sequence: int
    begin: int
    from_: int
    end: int


def lines(ragged: Ragged, opens: np.ndarray, closes: np.ndarray) -> list[np.ndarray]:
    """Every sequence with its ends put in."""
    bos, eos, empty = (np.array(ids, np.int64) for ids in ([SPECIALS.bos], [SPECIALS.eos], []))
    return [
        np.concatenate([bos if first else empty, tokens, eos if last else empty]).astype(np.int64)
        for tokens, first, last in zip(ragged, opens, closes, strict=True)
    ]


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


def padded(rows: list[np.ndarray], device: torch.device) -> tuple[Tensor, Layout]:
    """Right-padded tokens and their layout."""
    lengths = [len(row) for row in rows]
    tokens = np.full((len(rows), max(lengths, default=0)), SPECIALS.pad, np.int64)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
    if min(lengths, default=0) == max(lengths, default=0):
        return torch.from_numpy(tokens).to(device), PLAIN
    return torch.from_numpy(tokens).to(device), Layout(lengths_B=torch.tensor(lengths, device=device))


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
def token_log_probs(
    model: Any, ragged: Ragged, opens: np.ndarray, closes: np.ndarray, *, window: int, unseen: float | None
) -> tuple[Ragged, Ragged]:
    """Natural log-probability of every predicted symbol, and whether it was the likeliest."""
    whole = lines(ragged, opens, closes)
    count_N = np.array([max(len(line) - 1, 0) for line in whole], np.int64)
    offsets = np.concatenate([[0], np.cumsum(count_N)])
    log_p, hit = np.zeros(offsets[-1]), np.zeros(offsets[-1], bool)
    pieces = [piece for i, count in enumerate(count_N.tolist()) if count for piece in cuts(count, window, i)]
    for group in batches(pieces):
        rows = [whole[p.sequence][p.begin : p.end] for p in group]
        tokens_BT, layout = padded(rows, model.device)
        outputs, _ = model(tokens_BT, layout=layout)
        log_BTV = predictive(outputs.logits, unseen).cpu()
        best_BT = log_BTV.argmax(-1).numpy()
        for row, p in enumerate(group):
            skip, width = p.from_ - p.begin, p.end - p.begin
            target = whole[p.sequence][p.from_ + 1 : p.end + 1]
            at = slice(offsets[p.sequence] + p.from_, offsets[p.sequence] + p.end)
            log_p[at] = log_BTV[row, torch.arange(skip, width), torch.from_numpy(target)].numpy()
            hit[at] = best_BT[row, skip:width] == target
    return Ragged(log_p, offsets), Ragged(hit, offsets)


@torch.no_grad()
def next_log_probs(model: Any, ragged: Ragged, opens: np.ndarray, *, window: int, unseen: float | None) -> Tensor:
    """Distribution after each sequence (N, V); only the last window of a longer one is read."""
    rows = lines(ragged, opens, np.zeros(len(ragged), bool))
    rows = [row[-window:] if window else row for row in rows]
    rows = [row if len(row) else np.array([SPECIALS.bos]) for row in rows]
    out = torch.zeros(len(rows), model.sizes.vocabulary)
    for group in batches([Line(i, 0, 0, len(row)) for i, row in enumerate(rows)]):
        tokens_BT, layout = padded([rows[p.sequence] for p in group], model.device)
        outputs, _ = model(tokens_BT, layout=layout)
        last_B = torch.tensor([p.end - 1 for p in group], device=model.device)
        at = torch.arange(len(group), device=model.device)
        picked = outputs.logits[at, last_B]
        out[[p.sequence for p in group]] = predictive(picked, unseen).cpu()
    return out


@torch.no_grad()
def pooled(model: Any, ragged: Ragged, opens: np.ndarray, closes: np.ndarray, *, window: int) -> np.ndarray:
    """Mean of the last layer over all positions, float32 (N, D)."""
    whole = lines(ragged, opens, closes)
    pieces = [
        Line(i, at, at, min(at + (window or len(line)), len(line)))
        for i, line in enumerate(whole)
        for at in range(0, len(line), window or max(len(line), 1))
    ]
    sums, counts = np.zeros((len(whole), model.config.backbone.width)), np.zeros(len(whole))
    for group in batches(pieces):
        tokens_BT, layout = padded([whole[p.sequence][p.begin : p.end] for p in group], model.device)
        outputs, _ = model(tokens_BT, layout=layout)
        hidden_BTD = outputs.hidden[-1].float().cpu().numpy()
        for row, p in enumerate(group):
            sums[p.sequence] += hidden_BTD[row, : p.end - p.begin].sum(0)
            counts[p.sequence] += p.end - p.begin
    return (sums / np.maximum(counts, 1)[:, None]).astype(np.float32)


@torch.no_grad()
def class_log_probs(model: Any, ragged: Ragged) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of the classes (N, C) and the pooled vectors (N, D) of an encoder."""
    ones = np.ones(len(ragged), bool)
    whole = lines(ragged, ones, ones)
    log_NC = np.zeros((len(whole), model.sizes.classes))
    pooled_ND = np.zeros((len(whole), model.config.backbone.width), np.float32)
    for group in batches([Line(i, 0, 0, len(line)) for i, line in enumerate(whole)]):
        tokens_BT, layout = padded([whole[p.sequence] for p in group], model.device)
        outputs, _ = model(tokens_BT, layout=layout)
        at = [p.sequence for p in group]
        log_NC[at] = outputs.logits.double().log_softmax(-1).cpu().numpy()
        pooled_ND[at] = outputs["pooled"].float().cpu().numpy()
    return log_NC, pooled_ND
