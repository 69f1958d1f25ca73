"""Statistics of evaluations, against scipy and values by hand."""

import numpy as np
import pytest
from scipy import stats

from samonai.metrics.statistics import bland_altman, describe, evaluation_statistics, paired

RNG = np.random.default_rng(4)
VALUES = RNG.uniform(0.6, 0.95, 20)


def row(case: str, name: str, method: str, dice: float | None, **more: object) -> dict:
    return {"case": case, "class": name, "method": method, "dice": dice, **more}


def test_mean_sd_median_and_interval_of_independent_patients() -> None:
    found = describe(VALUES, [str(n) for n in range(20)])
    assert found["mean"] == pytest.approx(VALUES.mean())
    assert found["sd"] == pytest.approx(VALUES.std(ddof=1))
    assert found["median"] == pytest.approx(np.median(VALUES))
    wanted = stats.bootstrap(
        (VALUES,), np.mean, n_resamples=20000, method="BCa", random_state=1
    ).confidence_interval
    assert found["ci95"] == pytest.approx([wanted.low, wanted.high], abs=0.01)


def test_an_interval_is_over_patients_and_not_over_cases() -> None:
    """Ten copies of each patient's value say nothing new."""
    one = describe(VALUES[:6], list("abcdef"))
    copied = describe(np.repeat(VALUES[:6], 10), list(np.repeat(list("abcdef"), 10)))
    assert copied["n"] == 60
    assert copied["patients"] == 6
    assert copied["ci95"] == pytest.approx(one["ci95"], abs=1e-9)


def test_paired_tests_are_scipys_with_the_matched_rank_biserial() -> None:
    others = VALUES - RNG.normal(0.02, 0.03, 20)
    found = paired(VALUES, others, [str(n) for n in range(20)])
    difference = VALUES - others
    assert found["difference"] == pytest.approx(difference.mean())
    assert found["wilcoxon_p"] == pytest.approx(stats.wilcoxon(VALUES, others).pvalue)
    ranks = stats.rankdata(np.abs(difference))
    plus, minus = ranks[difference > 0].sum(), ranks[difference < 0].sum()
    assert found["rank_biserial"] == pytest.approx((plus - minus) / (plus + minus))
    same = paired(VALUES, VALUES, [str(n) for n in range(20)])
    assert same["wilcoxon_p"] is None
    assert same["ci95"] == [0, 0]


def test_bland_altman_by_hand() -> None:
    found = bland_altman([11, 9, 13], [10, 10, 10])
    assert found["bias"] == pytest.approx(1)
    assert found["sd"] == pytest.approx(2)
    assert found["limits"] == pytest.approx([1 - 1.96 * 2, 1 + 1.96 * 2])
    assert bland_altman([], []) == {"n": 0, "bias": None, "sd": None, "limits": None}


def test_statistics_of_rows_count_what_is_missing_and_name_the_worst() -> None:
    rows = []
    for n in range(7):
        ok = "missing_in_prediction" if n == 3 else "ok"
        dice = 0.0 if n == 3 else 0.8 + n / 100
        volumes = {"volume_ml": 1.0 + n, "reference_volume_ml": 1.0}
        rows += [
            row(f"c{n}", "liver", "finetuned", dice, status=ok, **volumes),
            row(f"c{n}", "cyst", "finetuned", None, status="absent"),
            row(f"c{n}", "liver", "box", 0.5, status="ok"),
        ]
    found = evaluation_statistics(rows, ["dice"], {f"c{n}": f"p{n // 2}" for n in range(7)})
    assert (found["cases"], found["patients"]) == (7, 4)
    liver = found["per_class"]["liver"]
    assert liver["statuses"]["missing_in_prediction"] == 1
    assert liver["volumes"]["n"] == 7
    assert liver["paired"]["box"]["dice"]["n"] == 7
    assert liver["paired"]["box"]["dice"]["patients"] == 4
    assert found["per_class"]["cyst"]["described"]["dice"]["finetuned"]["n"] == 0
    assert found["per_class"]["cyst"]["statuses"]["absent"] == 7
    assert [one["case"] for one in found["worst"]] == ["c3", "c0", "c1", "c2", "c4"]
