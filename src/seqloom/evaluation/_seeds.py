"""What training seeds alone would change in a mean, from a few runs of several models.

    mean*_m - mean_m = z_m s_m / sqrt(S_m),    z_m ~ N(0, 1),    s_m^2 = v df / chi2_df,    v = sum_k df_k v_k / df

v_k is the variance over the S_k seeds of model k, df_k = S_k - 1, df their sum: few seeds say little about one
model's spread, those of all models say more. A model whose variance stands out from the pool (an F test at 1 %)
leaves it and keeps its own, with its own few degrees of freedom.

Shapes: S seeds, R replicates.
Source: pooled variance as in one-way analysis of variance, Fisher, "Statistical methods for research workers", 1925.
"""

from collections.abc import Mapping

import numpy as np

from seqloom.core.rng import generator

OUTLIER = 0.99
_F_DRAWS = 100_000


def seed_noise(by_seed: Mapping[str, np.ndarray], draws: int, seed: int) -> dict[str, np.ndarray]:
    """What to add to each replicate of a model's mean (R,); only for models with several seeds."""
    several = {name: mean_S for name, mean_S in by_seed.items() if len(mean_S) > 1}
    variances = {name: float(np.var(mean_S, ddof=1)) for name, mean_S in several.items()}
    freedom = {name: len(mean_S) - 1 for name, mean_S in several.items()}
    pool = _pool(variances, freedom, seed)
    noise = {}
    for group in [tuple(pool), *((name,) for name in several if name not in pool)]:
        df = sum(freedom[name] for name in group)
        if not df:
            continue
        variance = sum(freedom[name] * variances[name] for name in group) / df
        scale_R = np.sqrt(variance * df / generator(seed, "spread", *group).chisquare(df, draws))
        for name in group:
            z_R = generator(seed, "seeds", name).standard_normal(draws)
            noise[name] = z_R * scale_R / np.sqrt(len(several[name]))
    return noise


def _pool(variances: Mapping[str, float], freedom: Mapping[str, int], seed: int) -> list[str]:
    """Models whose variances may be one: the largest leaves as long as it stands out from the rest."""
    pool = sorted(variances, key=lambda name: variances[name])
    while len(pool) > 1:
        *rest, worst = pool
        df = sum(freedom[name] for name in rest)
        common = sum(freedom[name] * variances[name] for name in rest) / df
        if variances[worst] <= common * _f_quantile(freedom[worst], df, seed):
            break
        pool = rest
    return pool


def _f_quantile(above: int, below: int, seed: int) -> float:
    """The outlier's quantile of F(above, below), by simulation: no need of a statistics library."""
    rng = generator(seed, "F", above, below)
    return float(np.quantile(rng.f(above, below, _F_DRAWS), OUTLIER))
