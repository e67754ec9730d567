"""Tests of llama_qna/evaluation/intervals.py, against cases worked out by hand and a simulation."""

from itertools import product

import numpy as np
import pytest

from llama_qna.evaluation.intervals import difference, holm, interval


def test_mean_is_over_rows_and_the_interval_over_clusters():
    """Two clusters can be drawn in four ways; a quarter of the draws is each extreme, so the interval spans them."""
    assert interval([0, 0, 0, 1], ["a", "a", "a", "b"]) == {"mean": 0.25, "low": 0, "high": 1}


def test_interval_is_the_percentiles_of_all_possible_draws():
    values, clusters = [0.1, 0.5, 0.3, 0.9, 0.2, 0.4], ["a", "a", "b", "c", "c", "d"]
    rows = [[0.1, 0.5], [0.3], [0.9, 0.2], [0.4]]
    every = [np.mean([v for cluster in drawn for v in cluster]) for drawn in product(rows, repeat=4)]
    low, high = np.quantile(every, [0.025, 0.975])
    found = interval(values, clusters)
    assert found["mean"] == pytest.approx(2.4 / 6)
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=0.01)


def test_clusters_weigh_by_size():
    """A draw of one big and one small cluster has the mean of their rows, 0.1, and not of their means, 0.5."""
    values, clusters = [0] * 9 + [1], ["big"] * 9 + ["small"]
    draws = {interval(values, clusters, draws=1, seed=seed)["low"] for seed in range(40)}
    assert draws == {0, 0.1, 1}


def simulation(rng, sections=20, rows=7, spread=0.2):
    """Scores of questions around the level of their section, whose mean over all sections is 0.5."""
    level = rng.normal(0.5, spread, sections)
    values = (level[:, None] + rng.normal(0, 0.1, (sections, rows))).ravel()
    return values, np.repeat(np.arange(sections), rows)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    runs = [interval(*simulation(rng), draws=500, seed=run) for run in range(300)]
    covered = np.mean([run["low"] <= 0.5 <= run["high"] for run in runs])
    assert 0.88 <= covered <= 0.98  # 20 clusters: a little under 95%, and chance moves 300 runs by 1.3 points


def test_rows_taken_as_independent_would_cover_the_truth_too_seldom():
    rng = np.random.default_rng(0)
    runs = [interval(values, range(len(values)), draws=500) for values, _ in (simulation(rng) for _ in range(100))]
    assert np.mean([run["low"] <= 0.5 <= run["high"] for run in runs]) < 0.7


def test_clustered_rows_make_the_interval_wider_and_independent_ones_do_not():
    def widths(spread):
        values, clusters = simulation(np.random.default_rng(1), spread=spread)
        found = [interval(values, clusters), interval(values, range(len(values)))]
        return [one["high"] - one["low"] for one in found]

    clustered, independent = widths(spread=0.2)
    assert clustered > 1.8 * independent
    clustered, independent = widths(spread=0)
    assert clustered == pytest.approx(independent, rel=0.4)


def test_the_same_seed_gives_the_same_interval_in_whatever_order_the_rows_come():
    values, clusters = simulation(np.random.default_rng(2))
    order = np.random.default_rng(3).permutation(len(values))
    assert interval(values, clusters) == interval(list(values), [str(c) for c in clusters])
    assert interval(values[order], clusters[order]) == pytest.approx(interval(values, clusters))
    assert interval(values, clusters, seed=1) != interval(values, clusters, seed=2)


def test_one_cluster_has_an_interval_of_no_width_and_proves_nothing():
    assert interval([0.2, 0.4], ["a", "a"]) == {"mean": 0.3, "low": 0.3, "high": 0.3}
    assert difference([0.2, 0.4], [0.1, 0.1], ["a", "a"])["p"] == 1


def test_difference_is_paired_by_row():
    """Each answer is better by 0.1 to 0.2: certain when paired, lost in the spread between sections when not."""
    rng = np.random.default_rng(4)
    others, clusters = simulation(rng)
    values = others + rng.uniform(0.1, 0.2, len(others))
    found = difference(values, others, clusters)
    assert found["mean"] == pytest.approx(0.15, abs=0.01)
    assert 0.1 < found["low"] < found["mean"] < found["high"] < 0.2
    assert found["p"] == pytest.approx(2 / 10_001)  # no draw is at or below zero
    assert interval(values, clusters)["low"] < interval(others, clusters)["high"]


def test_difference_the_other_way_round_is_its_mirror_image():
    values, clusters = simulation(np.random.default_rng(5))
    others, _ = simulation(np.random.default_rng(6))
    one, other = difference(values, others, clusters), difference(others, values, clusters)
    assert [one["mean"], one["low"], one["high"]] == pytest.approx([-other["mean"], -other["high"], -other["low"]])
    assert one["p"] == other["p"]


def test_p_is_twice_the_share_of_draws_on_the_wrong_side():
    """Clusters of one row with +1, +1, -1: a draw of three is below zero in 7 of 27 cases and never zero."""
    found = difference([1, 1, 0], [0, 0, 1], ["a", "b", "c"])
    assert found["p"] == pytest.approx(2 * 7 / 27, abs=0.02)
    assert found["mean"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "values, others",
    [
        ([0.5, 0.5, 0.7], [0.5, 0.5, 0.7]),
        # each section's differences cancel out, but not in floating point: 0.1 + 0.2 - 0.3 is 5.6e-17
        ([0.1, 0.2, 0.0] * 2, [0.0, 0.0, 0.3] * 2),
    ],
)
def test_no_difference_has_a_p_of_one(values, others):
    clusters = ["a"] * (len(values) // 2) + ["b"] * (len(values) - len(values) // 2)
    assert difference(values, others, clusters) == {"mean": 0, "low": 0, "high": 0, "p": 1}


def test_p_is_below_a_twentieth_where_the_interval_leaves_out_zero():
    rng = np.random.default_rng(7)
    agreed = []
    for shift in np.linspace(0, 0.15, 30):
        values, clusters = simulation(rng, spread=0.1)
        found = difference(values, np.full(len(values), 0.5 - shift), clusters, draws=999)
        agreed.append((found["p"] < 0.05) == (found["low"] > 0 or found["high"] < 0))
    assert sum(agreed) >= 29  # a draw on the border may count on either side


def test_true_null_is_rejected_about_as_seldom_as_the_level_says():
    rng = np.random.default_rng(8)
    p_values = []
    for run in range(300):
        (values, clusters), (others, _) = simulation(rng), simulation(rng)
        p_values.append(difference(values, others, clusters, draws=500, seed=run)["p"])
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.12


@pytest.mark.parametrize(
    "p_values, adjusted",
    [
        # 4 x 0.005, 3 x 0.01, 2 x 0.03 and 1 x 0.04, which must not fall below the 0.06 before it
        ({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}, {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}),
        ({"a": 0.02}, {"a": 0.02}),
        ({"a": 0.7, "b": 0.6}, {"a": 1, "b": 1}),
        ({"a": 0.02, "b": 0.02}, {"a": 0.04, "b": 0.04}),
        ({}, {}),
    ],
)
def test_holm_is_what_a_hand_computes(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)
    assert list(holm(p_values)) == list(p_values)


def test_holm_rejects_what_the_step_down_procedure_rejects():
    """As Holm wrote it: from the smallest on, reject while p <= level / (number left)."""
    rng = np.random.default_rng(9)
    for level in [0.01, 0.05, 0.2]:
        p_values = {str(i): p for i, p in enumerate(rng.uniform(0, 0.1, 12))}
        rejected = set()
        for left, name in zip(range(12, 0, -1), sorted(p_values, key=p_values.get), strict=True):
            if p_values[name] > level / left:
                break
            rejected.add(name)
        assert {name for name, p in holm(p_values).items() if p <= level} == rejected
