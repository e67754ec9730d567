"""How sure a mean is: bootstrap intervals clustered by section, paired differences and Holm's correction.

Questions about one section rise and fall together, so that whole sections are drawn, not questions: rows that are not
independent would make the intervals too narrow (Davison and Hinkley 1997, section 3.8).
"""

from __future__ import annotations

import numpy as np

LEVEL = 0.95


def interval(values: list[float], clusters: list[str], draws: int = 10_000, seed: int = 42) -> dict[str, float]:
    """The mean and its 95% percentile interval from a bootstrap of whole clusters (Efron and Tibshirani 1993, ch. 13).

    Each draw takes as many clusters as there are, with replacement, and is the mean over all rows of those clusters:
    clusters weigh by their size. Few clusters make the interval somewhat too narrow (Cameron, Gelbach and Miller 2008),
    and a single one gives an interval of no width, which says nothing.

    Args:
        values: one score a row, (N,).
        clusters: the section of each row, (N,).

    Returns:
        `mean`, `low`, `high`, in the unit of the scores.
    """
    values = np.asarray(values, dtype=float)
    return _summary(values, _means(values, clusters, draws, seed))


def difference(
    values: list[float], others: list[float], clusters: list[str], draws: int = 10_000, seed: int = 42
) -> dict[str, float]:
    """The mean of `values - others`, row by row, with its 95% interval as in `interval` and a two-sided p value.

    p = min(1, 2 (1 + min(a, b)) / (draws + 1)), where a draws are at most zero and b at least zero: the share of draws
    on the wrong side of zero, twice, with the +1 of Davison and Hinkley (1997, section 4.2), which keeps p above zero.
    It is below 0.05 where the interval leaves out zero, up to the rounding of a draw. A single cluster tells nothing
    of what another would show: p is 1.

    Args:
        values: one score a row, (N,).
        others: the scores of the same rows in the same order from what is compared with, (N,).
        clusters: the section of each row, (N,).

    Returns:
        `mean`, `low`, `high`, in the unit of the scores, and `p`.
    """
    more = np.asarray(values, dtype=float) - np.asarray(others, dtype=float)
    means = _means(more, clusters, draws, seed)
    wrong_side = min((means <= 0).sum(), (means >= 0).sum())
    p = min(1.0, 2 * (1 + int(wrong_side)) / (draws + 1)) if len(set(clusters)) > 1 else 1.0
    return _summary(more, means) | {"p": p}


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """Adjusted p values of comparisons that are made together, under the same names in the same order (Holm 1979).

    The k-th smallest of m is multiplied by m - k + 1, is at least the one before it and at most 1. Calling those
    up to 0.05 significant is then wrong about any of them with a chance of at most 5%.
    """
    adjusted, least = {}, 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.get)):
        least = adjusted[name] = max(least, min(1.0, (len(p_values) - rank) * p_values[name]))
    return {name: adjusted[name] for name in p_values}


def _means(values: np.ndarray, clusters: list[str], draws: int, seed: int) -> np.ndarray:
    """The mean of each draw, (draws,); only the sum and the size of a cluster matter."""
    codes = np.unique([str(cluster) for cluster in clusters], return_inverse=True)[1]  # from 0, (N,)
    sums, sizes = np.bincount(codes, weights=values), np.bincount(codes)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))  # (draws, clusters)
    # rounded, so that differences that cancel out are zero and not a trillionth on one side of it
    return (sums[drawn].sum(1) / sizes[drawn].sum(1)).round(12)


def _summary(values: np.ndarray, means: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"mean": round(float(values.mean()), 12), "low": float(low), "high": float(high)}
