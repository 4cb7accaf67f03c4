"""Whether data are like those that a model was trained on, and how odd each sequence is beside the held-out ones.

    percentile(x) = 100 (share of held-out sequences of like length with fewer bits per symbol than x), ties half

A profile is made once, when a model is fitted, and small; it is saved with the model and judges whatever is handed in
later. It says nothing where chance alone could look the same, or where there is too little to tell.
Shapes: N sequences, K bins of symbols, U units (sequences, or pieces where training had few of them), Q quantiles.
Source: Lin, "Divergence measures based on the Shannon entropy", 1991; Efron and Tibshirani, "An introduction to the
bootstrap", 1993, chapter 8, for drawing whole sequences; Hill, "A simple general approach to inference about the tail
of a distribution", 1975, for lengths.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from seqloom.app import _shares
from seqloom.app._reach import LEAST, UNLIKELY, Reach, Unseen, hill, percent, reaches, unlike
from seqloom.core.component import Value
from seqloom.core.rng import generator
from seqloom.core.specials import SPECIALS
from seqloom.data.features import Features
from seqloom.data.ragged import Ragged

SYMBOLS = 256
"""Most symbols whose shares are kept; the others are one bin."""
SEEN = 20
"""Least count in training of a symbol with a bin of its own: rarer ones were counted high by luck."""
BANDS, QUANTILES = 6, 201
ERRORS = 3.29
"""Standard errors that chance goes beyond once in 1000 times."""
SMALL = 0.002
"""Bits of divergence that are never worth a word: a coin that falls 55 to 45."""
DIGITS = 4
"""Digits of bits per symbol that count: beyond lies the rounding of batches."""

COARSE = "training held out too few sequences for percentiles, which stay empty"


@dataclass(frozen=True, kw_only=True)
class Profile(Value):
    """What training saw, and how well its held-out part fitted."""

    @dataclass(frozen=True, kw_only=True)
    class Band(Value):
        """Held-out sequences of like length: the fewer symbols, the wider their bits per symbol spread."""

        length: float
        """Their symbols, the geometric mean."""
        count: int
        """How many they are."""
        quantiles: tuple[float, ...]
        """Bits per symbol at equal steps from the best to the worst."""

    sequences: int
    """Sequences of the training part."""
    symbols: int
    """Their symbols, or steps."""
    lengths: tuple[int, ...]
    """Their lengths: the shortest, the quartiles and the longest."""
    tail: float = 0.0
    """Mean logarithm of a length beyond the third quartile over that quartile."""
    ids: tuple[int, ...] = ()
    """The most frequent symbols of the training part."""
    shares: tuple[float, ...] = ()
    """Their shares of its symbols."""
    chance: tuple[float, ...] = ()
    """Symbols times divergence that 1, 2, 4, .. units of the same source stay below."""
    apart: float = 0.0
    """Divergence of the held-out part from training, where it is beyond chance."""
    unknown: int = 0
    """Symbols of the held-out part that training never saw."""
    judged: int = 0
    """Symbols of the held-out part."""
    clumping: float = 1.0
    """How many times more the share of unknown symbols varies between units than with independent symbols."""
    rare: float = 0.0
    """Share of the training part's symbols that it holds once."""
    piece: int = 0
    """Symbols of a unit where training had few sequences; 0 = sequences are the units."""
    held_out: tuple[Band, ...] = ()
    """How well the held-out part fitted, from short to long."""
    channels: tuple[Reach, ...] = ()
    """Where values, and the inputs beside symbols, lay."""

    @classmethod
    def of(cls, train: Ragged, held_out: Ragged | None = None, *, bits: Ragged | None = None) -> Self:
        """Describe the data of a model.

        Args:
            train: Ids of the training sequences, whole, without ends; or real values, which have only lengths here.
            held_out: The same of the part that it was judged on.
            bits: Bits of every predicted symbol, or step, of the held-out part.
        """
        lengths_N = train.lengths
        piece = _shares.piece_of(lengths_N)
        quartiles = np.quantile(lengths_N, np.linspace(0, 1, 5)) if len(lengths_N) else np.zeros(5)
        common: dict[str, Any] = {
            "sequences": len(train),
            "symbols": train.total,
            "lengths": tuple(int(length) for length in quartiles),
            "tail": round(hill(lengths_N, max(quartiles[3], 1)), DIGITS),
            "piece": piece,
            "held_out": () if bits is None else _bands(bits),
        }
        if not _are_symbols(train):
            return cls(**common)
        shares = _seen(train, piece)
        if held_out is None:
            return cls(**common, **shares)
        unknown_L = held_out.flat == SPECIALS.unk
        borders = _shares.units(held_out.offsets, piece)
        clumping = _shares.clumping(_shares.sums(unknown_L, borders), np.diff(borders))
        judged: dict[str, Any] = {"unknown": int(unknown_L.sum()), "judged": held_out.total}
        rare = round(float((np.bincount(train.flat) == 1).sum() / max(train.total, 1)), 6)
        profile = cls(**common, **shares, **judged, rare=rare, clumping=round(clumping, DIGITS))
        apart, by_chance, _ = profile._divergence(held_out)
        return replace(profile, apart=round(apart, 6)) if apart > by_chance else profile

    def with_channels(self, features: Features | None, train: Ragged | None, held_out: Ragged | None) -> Self:
        """Keep where the channels lay, too.

        Args:
            features: What they are.
            train: Their columns in the training part, as ``features`` makes them.
            held_out: The same of the part that it was judged on.
        """
        return replace(self, channels=reaches(features, train, held_out))

    def percentile(self, bits_N: Any, count_N: Any) -> np.ndarray:
        """Share of held-out sequences that fit better, 0 to 100 (N,): 99 is odd, 50 is ordinary.

        Between two bands of lengths it moves from the one to the other with the logarithm of the length.

        Args:
            bits_N: Bits per symbol of each sequence.
            count_N: Its predicted symbols.

        Returns:
            NaN where the sequence has no symbols, or the held-out part was too small to compare with.
        """
        bits_N, count_N = np.asarray(bits_N, np.float64), np.asarray(count_N)
        if not self.held_out:
            return np.full(len(bits_N), np.nan)
        ranks_BN = np.stack([_ranks(np.round(bits_N, DIGITS), band) for band in self.held_out])
        got_N = (self._weights(count_N) * ranks_BN).sum(0)
        return np.where((count_N > 0) & ~np.isnan(bits_N), 100 * got_N, np.nan)

    def warnings(
        self,
        tokens: Ragged | None,
        bits: Ragged | None = None,
        *,
        columns: Ragged | None = None,
        name: Callable[[int], str] = str,
    ) -> list[str]:
        """What sets data apart from training, in a few sentences with figures; none = nothing was seen.

        Args:
            tokens: Ids of the sequences, or their real values; None = only bits are at hand.
            bits: Bits of every predicted symbol.
            columns: Values and inputs of every step, as the model's features make them.
            name: What to call the symbol of an id.
        """
        said: list[str | None] = []
        if tokens is not None:
            if _are_symbols(tokens):
                said.append(self._new_symbols(tokens))
            said.append(self._longer(tokens.lengths))
            if _are_symbols(tokens):
                said.append(self._other_shares(tokens, name))
        if columns is not None:
            said += unlike(self.channels, columns, self.piece)
        if bits is not None:
            said.append(self._other_fit(bits))
        return [sentence for sentence in said if sentence is not None]

    def _new_symbols(self, tokens: Ragged) -> str | None:
        usual = Unseen(found=self.unknown, of=self.judged, clumping=self.clumping, rare=self.rare)
        shares = usual.shares(tokens.flat == SPECIALS.unk, _shares.units(tokens.offsets, self.piece))
        if shares is None or not self.symbols:
            return None
        return f"{percent(shares[0])} of the symbols were never seen in training{usual.beside(shares[1])}"

    def _longer(self, lengths_N: np.ndarray) -> str | None:
        """Speaks where so many would hardly be beyond all of training, or one is beyond what the tail allows."""
        longest = self.lengths[-1]
        above, given = int((lengths_N > longest).sum()), len(lengths_N)
        if self.piece or not above or not self.sequences:
            return None
        i, top = np.arange(above), int(lengths_N.max())
        order = float(np.log((given - i) / (given + self.sequences - i)).sum())
        beyond = given / 4 * (top / max(self.lengths[3], 1)) ** (-1 / max(self.tail, 1e-2))
        if order > math.log(UNLIKELY) and beyond > UNLIKELY:
            return None
        of = f"{above:,} of {len(lengths_N):,} sequences are" if len(lengths_N) > 1 else "the sequence is"
        return f"{of} longer than any in training: up to {top:,} symbols, there at most {longest:,}"

    def _divergence(self, tokens: Ragged) -> tuple[float, float, np.ndarray]:
        """How far the shares lie from training's, how far they may by chance, and what sets them apart (K,)."""
        bins = len(self.ids) + 1
        count_K = np.bincount(_shares.binned(tokens, self.ids), minlength=bins)
        found, unknown = tokens.total, int((tokens.flat < SPECIALS.count).sum())
        if found - unknown < LEAST or not self.chance:
            return 0.0, math.inf, np.zeros(bins)
        p_K = np.append(self.shares, max(0.0, 1 - sum(self.shares)))
        q_K, known_K = count_K / found, np.append(count_K[:-1], count_K[-1] - unknown) / (found - unknown)
        # Rare symbols of training give way to new ones, so these count as rare; but new ones alone are no other shares.
        apart = float(min(_shares.divergence(p_K, q_K), _shares.divergence(p_K, known_K)))
        trained = self.symbols / self.piece if self.piece else self.sequences
        given = len(_shares.units(tokens.offsets, self.piece)) - 1
        # What is alike all along a sequence stays so in a longer one than any: its further symbols tell no more.
        told = found if self.piece else int(np.minimum(tokens.lengths, self.lengths[-1]).sum())
        own = min(given, told * trained / self.symbols)
        units = own * trained / (own + trained)  # training's own shares are a sample too
        symbols = told * self.symbols / (told + self.symbols)
        return apart, _shares.expected(self.chance, units) / symbols, q_K - p_K

    def _other_shares(self, tokens: Ragged, name: Callable[[int], str]) -> str | None:
        apart, by_chance, change_K = self._divergence(tokens)
        if apart <= max(by_chance + 2 * self.apart, SMALL):
            return None
        most = int(np.abs(change_K[:-1]).argmax())
        usual = self.shares[most]
        split = f", its held-out part {self.apart:.2g}" if self.apart else ""
        return (
            f"the symbols come in other shares than in training: {apart:.2g} bits apart (Jensen-Shannon), by chance "
            f"at most {by_chance:.2g}{split}; {name(self.ids[most])!r} is {percent(usual + change_K[most])} of them, "
            f"there {percent(usual)}"
        )

    def _other_fit(self, bits: Ragged) -> str | None:
        if not self.held_out:
            return COARSE if bits.total else None
        borders = _shares.units(bits.offsets, self.piece)
        count_U = np.diff(borders)
        percentile_U = self.percentile(_shares.sums(bits.flat, borders) / np.maximum(count_U, 1), count_U)
        keep_U = ~np.isnan(percentile_U)
        if not keep_U.any():
            return None
        percentile_U = percentile_U[keep_U]
        worse = float(((percentile_U > 50) + 0.5 * (percentile_U == 50)).mean())
        share_B = self._weights(count_U[keep_U]).mean(1)
        reference = sum(share**2 / band.count for share, band in zip(share_B, self.held_out, strict=True))
        error = 0.5 * math.sqrt(1 / len(percentile_U) + reference)
        middle = float(np.median(percentile_U))
        if abs(worse - 0.5) < ERRORS * error or abs(middle - 50) < 10:
            return None
        who = f"pieces of {self.piece:,} symbols" if self.piece else "the sequences"
        if middle > 50:
            return f"{who} fit worse than the held-out part: half of them worse than {middle:.0f} % of it"
        return (
            f"{who} fit better than the held-out part: half of them better than {100 - middle:.0f} % of it; were they "
            "part of the training data?"
        )

    def _weights(self, count_N: np.ndarray) -> np.ndarray:
        """What each band counts for a sequence of so many symbols (B, N): the two nearest ones share 1."""
        centre_B = np.log([band.length for band in self.held_out])
        at_N = np.interp(np.log(np.maximum(count_N, 1)), centre_B, np.arange(len(centre_B)))
        return np.maximum(1 - np.abs(np.arange(len(centre_B))[:, None] - at_N), 0)


def told(warnings: Sequence[str], model: str = "MODEL", *, network: bool = True) -> list[str]:
    """The sentences as lines for stderr, and what to do about them; only a network can go on from where it is."""
    lines = [f"{'note' if sentence == COARSE else 'warning'}: {sentence}" for sentence in warnings]
    if all(sentence == COARSE for sentence in warnings):
        return lines
    if not network:
        return [*lines, "for data like these fit a new model on them and the old ones together: seqloom fit FILE"]
    return [
        *lines,
        f"to go on from it on data like these: seqloom fit FILE --from {model}; for new symbols fit a new one",
    ]


def _are_symbols(ragged: Ragged) -> bool:
    return ragged.values.dtype.kind in "iu" and ragged.values.ndim == 1


def _seen(train: Ragged, piece: int) -> dict[str, Any]:
    """Shares of the frequent symbols, and how far samples of the same source lie from them."""
    count_V = np.bincount(train.flat, minlength=SPECIALS.count)
    count_V[: SPECIALS.count] = 0
    order_V = np.argsort(-count_V, kind="stable")[:SYMBOLS]
    ids = tuple(int(id) for id in order_V if count_V[id] >= SEEN)
    borders = _shares.units(train.offsets, piece)
    if not ids or len(borders) - 1 < _shares.FEW:
        return {}
    cut = Ragged(train.flat, borders)
    if len(cut) > _shares.UNITS:
        cut = cut.select(generator(0, "drift", len(cut)).permutation(len(cut))[: _shares.UNITS])
    bin_L = _shares.binned(cut, ids)
    bins = len(ids) + 1
    unit_L = np.repeat(np.arange(len(cut)), cut.lengths)
    ordinary_L = cut.flat >= SPECIALS.count
    flat = np.bincount((unit_L * bins + bin_L)[ordinary_L], minlength=len(cut) * bins)
    chance = _shares.chance(flat.reshape(len(cut), bins).astype(np.float32), neighbours=bool(piece))
    total = max(int(count_V.sum()), 1)
    return {
        "ids": ids,
        "shares": tuple(round(float(count_V[id] / total), 6) for id in ids),
        "chance": tuple(round(level, DIGITS) for level in chance),
    }


def _bands(bits: Ragged) -> tuple[Profile.Band, ...]:
    """Held-out sequences by length; where they are few, pieces of several lengths."""
    if len(bits) >= _shares.FEW:
        count_N = bits.lengths
        mean_N = _shares.sums(bits.flat, bits.offsets - bits.offsets[0]) / np.maximum(count_N, 1)
        order = np.argsort(count_N, kind="stable")
        order = order[(count_N[order] > 0) & np.isfinite(mean_N[order])]
        count_N, mean_N = count_N[order], mean_N[order]
        return tuple(_band(count_N[own], mean_N[own]) for own in _groups(count_N))
    found, size = [], _shares.SHORTEST
    while bits.total // size >= _shares.FEW:
        borders = _shares.units(bits.offsets, size)
        count_U = np.diff(borders)
        mean_U = _shares.sums(bits.flat, borders) / count_U
        keep_U = np.isfinite(mean_U)
        if keep_U.sum() >= _shares.FEW:
            found.append(_band(count_U[keep_U], mean_U[keep_U]))
        size *= 4
    return tuple(found)


def _groups(count_N: np.ndarray) -> list[slice]:
    """Neighbours in a sorted list of lengths that make one band each; equal lengths stay together."""
    least = max(LEAST, -(-len(count_N) // BANDS))
    ends = [*(np.flatnonzero(np.diff(count_N)) + 1).tolist(), len(count_N)]
    borders = [0]
    for end in ends:
        if end - borders[-1] >= least:
            borders.append(end)
    if len(borders) == 1:
        return [slice(0, len(count_N))] if len(count_N) >= _shares.FEW else []
    borders[-1] = len(count_N)  # the few longest ones join the band before them
    return [slice(low, high) for low, high in itertools.pairwise(borders)]


def _band(count_N: np.ndarray, mean_N: np.ndarray) -> Profile.Band:
    steps = np.linspace(0, 1, min(len(mean_N), QUANTILES))
    quantiles = np.quantile(np.round(mean_N, DIGITS), steps)
    length = float(np.exp(np.log(count_N).mean()))
    rounded = tuple(round(float(quantile), DIGITS + 1) for quantile in quantiles)
    return Profile.Band(length=round(length, 2), count=len(mean_N), quantiles=rounded)


def _ranks(bits_N: np.ndarray, band: Profile.Band) -> np.ndarray:
    """Share of a band that lies below, ties half (N,): a held-out sequence counts half for itself."""
    value_Q = np.array(band.quantiles)
    share_Q = (np.linspace(0, band.count - 1, len(value_Q)) + 0.5) / band.count
    low_N, high_N = np.searchsorted(value_Q, bits_N, "left"), np.searchsorted(value_Q, bits_N, "right")
    last = len(value_Q) - 1
    tied_N = (share_Q[np.minimum(low_N, last)] + share_Q[np.maximum(high_N - 1, 0)]) / 2
    between_N = np.interp(bits_N, value_Q, share_Q, left=0.0, right=1.0)
    return np.where(high_N > low_N, tied_N, between_N)
