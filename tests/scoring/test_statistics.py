"""Bootstrap-t intervals and sign-flip tests against SciPy, a loop and theory; Holm's correction."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from medground_bench.scoring import (
    MIN_CLUSTERS,
    ScoringError,
    bootstrap_ratios,
    compare_methods,
    holm,
    ratio_intervals,
    sign_flip_test,
)


def test_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(5, 2, 900)
    ((value, low, high),) = bootstrap_ratios(values, np.ones(900), range(900))
    error = values.std() / 30
    assert value == pytest.approx(values.mean())
    assert low == pytest.approx(value - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(value + 1.96 * error, abs=0.1 * error)


def test_few_patients_of_a_normal_score_give_students_interval() -> None:
    """Bootstrap-t estimates the distribution of Student's t: from 12 normal values it is about as wide."""
    rng = np.random.default_rng(1)
    ratio = []
    for k in range(60):
        values = rng.normal(0.5, 0.1, 12)
        ((_, low, high),) = bootstrap_ratios(values, np.ones(12), range(12), resamples=2000, seed=k)
        ratio.append((high - low) / (2 * stats.t.ppf(0.975, 11) * values.std(ddof=1) / np.sqrt(12)))
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.1)


def test_clusters_widen_the_interval() -> None:
    """Every patient has nine identical records: the interval is three times as wide as it pretends."""
    rng = np.random.default_rng(1)
    values = np.repeat(rng.random(100), 9)
    (alone,) = bootstrap_ratios(values, np.ones(900), range(900))
    (clustered,) = bootstrap_ratios(values, np.ones(900), np.repeat(np.arange(100), 9))
    assert (clustered.high - clustered.low) / (alone.high - alone.low) == pytest.approx(3, rel=0.1)


def test_ratio_of_sums_agrees_with_a_loop_over_records() -> None:
    """The interval from the definition: resampled records of patients, deviations over their linearised error."""
    rng = np.random.default_rng(2)
    a, b, patients = rng.random(60), rng.random(60) + 0.5, rng.integers(0, 17, 60)
    ids = np.unique(patients)

    def ratio_and_error(groups: list[np.ndarray]) -> tuple[float, float]:
        rows = np.concatenate(groups)
        ratio = a[rows].sum() / b[rows].sum()
        residuals = [(a[g] - ratio * b[g]).sum() for g in groups]
        spread = sum(u * u for u in residuals) * len(groups) / (len(groups) - 1)
        return ratio, np.sqrt(spread) / b[rows].sum()

    members = {p: np.flatnonzero(patients == p) for p in ids}
    value = a.sum() / b.sum()
    left_out = [a[patients != p].sum() / b[patients != p].sum() for p in ids]
    error = np.sqrt((len(ids) - 1) / len(ids) * ((left_out - np.mean(left_out)) ** 2).sum())
    loop = []
    for _ in range(6000):
        ratio, its_error = ratio_and_error([members[p] for p in rng.choice(ids, len(ids))])
        loop.append((ratio - value) / its_error)
    low, high = value - np.quantile(loop, [0.975, 0.025]) * error
    (found,) = bootstrap_ratios(a, b, patients)
    assert found.value == pytest.approx(value)
    assert found.low == pytest.approx(low, abs=0.06 * (high - low))
    assert found.high == pytest.approx(high, abs=0.06 * (high - low))


def test_percentiles_of_the_same_resamples_agree_with_scipy() -> None:
    """With many patients all bootstrap intervals are the same: SciPy's BCa over (score, size) pairs is the oracle."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 6, 150)
    sums = np.array([rng.beta(2, 4, n).sum() for n in sizes])
    oracle = stats.bootstrap(
        (sums, sizes), lambda s, n, axis: s.sum(axis) / n.sum(axis), paired=True, n_resamples=4000, random_state=rng
    ).confidence_interval
    (found,) = ratio_intervals(sums[:, None, None], sizes[:, None, None].astype(float))
    width = oracle.high - oracle.low
    assert found.low == pytest.approx(oracle.low, abs=0.08 * width)
    assert found.high == pytest.approx(oracle.high, abs=0.08 * width)


def test_mean_over_parts_has_the_interval_of_its_own_linearisation() -> None:
    """Two LVLMs on other patients each: the variances of their ratios add up."""
    rng = np.random.default_rng(4)
    a, b = np.zeros((300, 2, 1)), np.zeros((300, 2, 1))
    a[:100, 0, 0], b[:100, 0, 0] = rng.random(100), 1
    a[100:, 1, 0], b[100:, 1, 0] = rng.random(200), 1
    (found,) = ratio_intervals(a, b)
    first, second = a[:100, 0, 0], a[100:, 1, 0]
    assert found.value == pytest.approx((first.mean() + second.mean()) / 2)
    error = np.sqrt(first.var() / 100 + second.var() / 200) / 2
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_records_outside_a_statistic_do_not_touch_it() -> None:
    rng = np.random.default_rng(3)
    values = rng.random(80)
    mask = np.arange(80) % 2 == 0
    (part,) = bootstrap_ratios(np.where(mask, values, 0), mask.astype(float), range(80))
    (alone,) = bootstrap_ratios(values[mask], np.ones(40), range(40))
    assert part == pytest.approx(alone)
    assert part.low < part.value < part.high


def test_the_seed_decides_and_bounds_cut() -> None:
    values = np.random.default_rng(5).beta(0.3, 2, 8)
    one = np.ones(8)
    free, again, other = (bootstrap_ratios(values, one, range(8), seed=s, resamples=500)[0] for s in (0, 0, 1))
    assert free == again != other
    (cut,) = bootstrap_ratios(values, one, range(8), bounds=[(0, 1)], resamples=500)
    assert (cut.low, cut.high) == (max(free.low, 0), min(free.high, 1))


def test_no_interval_from_few_patients_or_without_records() -> None:
    for count in (1, 2, MIN_CLUSTERS - 1):
        (few,) = bootstrap_ratios(np.arange(count) / 10, np.ones(count), range(count))
        assert few.value == pytest.approx(np.mean(np.arange(count) / 10))
        assert np.isnan([few.low, few.high]).all()
    (enough,) = bootstrap_ratios(np.arange(6) / 10, np.ones(6), range(6))
    assert enough.low < 0.25 < enough.high
    # What counts is how many patients a statistic has, not how many there are.
    (part,) = bootstrap_ratios(np.ones(20), np.arange(20) < 5.0, range(20))
    assert np.isnan(part.low)
    (none,) = bootstrap_ratios(np.zeros(5), np.zeros(5), range(5))
    assert np.isnan(none.value)
    with pytest.raises(ScoringError):
        bootstrap_ratios(np.array([np.nan]), np.ones(1), ["p"])
    with pytest.raises(ScoringError):
        bootstrap_ratios(np.ones(3), np.ones(3), ["p"])


def test_equal_patients_have_an_interval_of_no_width() -> None:
    sizes = np.array([1.0, 3, 2, 5, 7, 4, 1])
    (same,) = bootstrap_ratios(sizes * 0.3, sizes, range(7))
    assert same.value == pytest.approx(0.3)
    assert same.low == same.high == same.value


def test_an_end_that_the_data_do_not_bound_is_wilsons() -> None:
    """Five of seven patients score 0: many resamples are all zeros and say nothing about the upper end."""
    values = np.array([0, 0, 0, 0, 0, 0.4, 0.7])
    (free,) = bootstrap_ratios(values, np.ones(7), range(7))
    assert free.high == np.inf
    (found,) = bootstrap_ratios(values, np.ones(7), range(7), bounds=[(0.0, 1.0)])
    assert (found.low, found.high) == (0.0, pytest.approx(wilson(1.1, 7)[1]))


@pytest.mark.parametrize(("hits", "patients"), [(98, 100), (39, 40), (40, 40), (0, 12)])
def test_rare_misses_have_wilsons_interval_as_scipy_has_it(hits: int, patients: int) -> None:
    values = np.arange(patients) < hits
    expected = stats.binomtest(hits, patients).proportion_ci(method="wilson")
    (found,) = bootstrap_ratios(values.astype(float), np.ones(patients), range(patients), bounds=[(0, 1)])
    end = (found.low, expected.low) if hits else (found.high, expected.high)
    assert end[0] == pytest.approx(end[1])
    # Another scale is the same interval; two records of every patient are not twice as many patients.
    for scale, times in ((2, 1), (1, 2)):
        (same,) = bootstrap_ratios(
            scale * values.repeat(times) - (scale - 1.0),
            np.ones(patients * times),
            np.arange(patients).repeat(times).tolist(),
            bounds=[(1.0 - scale, 1.0)],
        )
        assert (np.array(same[1:]) + scale - 1) / scale == pytest.approx(np.array(found[1:]))


def test_patients_with_many_records_count_for_fewer() -> None:
    sizes = np.array([30.0, *np.ones(10)])
    (found,) = bootstrap_ratios(sizes, sizes, range(11), bounds=[(0, 1)])
    kish = sizes.sum() ** 2 / (sizes**2).sum()
    assert (found.low, found.high) == (pytest.approx(wilson(kish, kish)[0]), 1.0)


def wilson(successes: float, n: float) -> tuple[float, float]:
    """The two p at which (successes - n p)^2 = z^2 n p (1 - p): its definition, for any n."""
    z2 = stats.norm.ppf(0.975) ** 2
    low, high = sorted(np.roots([n * n + z2 * n, -(2 * n * successes + z2 * n), successes**2]).real)
    return float(low), float(high)


# --- sign flips


@pytest.mark.parametrize("clusters", [6, 9, 13])
def test_sign_flips_agree_with_scipy(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    differences = rng.normal(0.3, 1, (clusters, 5))
    oracle = [
        stats.permutation_test(
            (d,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
        ).pvalue
        for d in differences.T
    ]
    np.testing.assert_allclose(sign_flip_test(differences), oracle, rtol=1e-12)


def test_sign_flips_by_hand() -> None:
    one_way = np.array([0.5, 0.25, 1, 2, 0.125, 0.3])
    assert sign_flip_test(one_way[:, None])[0] == 2 / 2**6
    values = np.array([1.0, 2, 3, 4, 5, 5, -2])
    observed = abs(values.sum())
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=7)]
    assert sign_flip_test(values[:, None])[0] == np.mean([s >= observed - 1e-9 for s in sums])
    assert sign_flip_test(np.zeros((8, 1)))[0] == 1
    assert np.isnan(sign_flip_test(np.ones((5, 3)))).all()


def test_drawn_flips_approach_the_enumeration_and_keep_the_least_p() -> None:
    rng = np.random.default_rng(7)
    differences = rng.normal(0.4, 1, (18, 4))
    bits = np.arange(1 << 18)[:, None] >> np.arange(18) & 1
    sums = np.abs((1 - 2 * bits) @ differences)
    exact = (sums >= np.abs(differences.sum(axis=0)) - 1e-9).mean(axis=0)
    np.testing.assert_allclose(sign_flip_test(differences, resamples=40_000), exact, atol=0.01)
    np.testing.assert_array_equal(sign_flip_test(differences), sign_flip_test(differences))
    for clusters in (6, 12, 14, 15, 40):
        p = sign_flip_test(np.ones((clusters, 1)), resamples=200_000 if clusters == 15 else 1000)[0]
        assert p >= 2 / 2**clusters
        assert p <= 2 / 2**clusters + (0.001 if clusters > 14 else 0)


def test_known_winners_and_ties() -> None:
    rng = np.random.default_rng(4)
    base = rng.random(300) * 0.5
    methods = {"base": base, "better": base + 0.05 + rng.normal(0, 0.05, 300), "copy": base.copy()}
    found = {(c.first, c.second): c for c in compare_methods(methods, range(300))}
    assert len(found) == 3
    clear = found["base", "better"]
    assert clear.difference.high < 0
    assert clear.p_holm < 0.01
    assert clear.clusters == 300
    same = found["base", "copy"]
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, 0, 0)
    assert same.p_value == same.p_holm == 1


def test_three_patients_decide_nothing() -> None:
    scores = {"always": np.full(30, 0.9), "never": np.zeros(30)}
    (few,) = compare_methods(scores, np.repeat([0, 1, 2], 10))
    assert few.difference.value == pytest.approx(0.9)
    assert few.clusters == 3
    assert np.isnan([few.difference.low, few.difference.high, few.p_value, few.p_holm]).all()
    (six,) = compare_methods(scores, np.repeat(np.arange(6), 5))
    assert six.p_value == 2 / 2**6


def test_only_chosen_pairs_are_corrected_for() -> None:
    rng = np.random.default_rng(8)
    methods = {name: rng.random(40) + shift for name, shift in (("a", 0), ("b", 0.1), ("c", 0.2))}
    chosen = compare_methods(methods, range(40), [("a", "c"), ("a", "b")])
    assert [(c.first, c.second) for c in chosen] == [("a", "c"), ("a", "b")]
    assert [c.p_holm for c in chosen] == holm([c.p_value for c in chosen])


def test_pairing_removes_the_records_own_difficulty() -> None:
    rng = np.random.default_rng(5)
    hard = rng.random(200)
    (paired,) = compare_methods({"a": hard + 0.01, "b": hard + rng.normal(0, 0.01, 200)}, range(200))
    width = paired.difference.high - paired.difference.low
    assert width < 0.01  # unpaired it would be about 0.11
    assert paired.p_value < 0.01


def test_comparison_refuses_what_does_not_pair() -> None:
    with pytest.raises(ScoringError, match="2 scores for 3 records"):
        compare_methods({"a": [1, 2, 3], "b": [1, 2]}, [1, 2, 3])
    assert compare_methods({"a": [1, 2]}, [1, 2]) == []


def test_holm_known_answer() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []
    assert holm([0.01, float("nan"), 0.04]) == pytest.approx([0.02, float("nan"), 0.04], nan_ok=True)


# --- null simulation (benchmarks/null_simulation.py prints the same figures)


@pytest.mark.heavy
@pytest.mark.parametrize("patients", [6, 12, 30, 100])
def test_nominal_levels_hold_in_null_simulations(patients: int) -> None:
    from benchmarks.null_simulation import POPULATIONS, coverage, false_positives, rare

    for population in POPULATIONS:
        assert 0.92 <= coverage(population, patients, trials=1000, seed=patients) <= 0.98, population
    for rate in (0.8, 0.95, 0.99):
        assert coverage(rare(rate), patients, trials=1000, seed=patients) >= 0.95, rate
    any_pair, one_pair = false_positives(patients, methods=12, trials=1000, seed=patients)
    assert any_pair <= 0.07
    assert one_pair <= 0.06
