"""Percentiles of scans: numpy's, to the last bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from samonai.domains.medical import volume as module
from samonai.domains.medical.volume import quantiles

PAIRS = st.tuples(st.floats(0, 100), st.floats(0, 100)).map(sorted)


@settings(max_examples=200, deadline=None)
@given(
    values=arrays(
        np.float32,
        st.tuples(*[st.integers(1, 12)] * 3),
        elements=st.floats(-1e6, 1e6, width=32) | st.sampled_from([-1024.0, 0.0, 7.0]),
    ),
    wanted=PAIRS,
    order=st.sampled_from("CF"),
)
def test_they_are_numpys(values, wanted, order) -> None:
    values = np.asarray(values, order=order)
    assert list(quantiles(values, *wanted)) == np.percentile(values, wanted).tolist()


@pytest.mark.parametrize("kind", ["normal", "air", "integers", "stripes", "one"])
def test_they_are_numpys_where_most_is_never_sorted(kind: str, monkeypatch) -> None:
    monkeypatch.setattr(module, "_SAMPLED", 1000)
    monkeypatch.setattr(module, "_AT_ONCE", 4096)
    rng = np.random.default_rng(0)
    values = {
        "normal": rng.normal(100, 30, (60, 50, 40)),
        "air": np.where(rng.random((60, 50, 40)) < 0.6, -1024, rng.normal(0, 300, (60, 50, 40))),
        "integers": rng.integers(0, 5, (60, 50, 40)),
        # What a sample of every 120th value sees is not what there is.
        "stripes": np.where(np.arange(120_000) % 120 == 0, 5, rng.normal(0, 1, 120_000)),
        "one": np.full((60, 50, 40), 3),
    }[kind].astype(np.float32)
    before = values.copy()
    for wanted in ([0.5, 99.5], [0, 100], [2, 98], [49.9, 50.1], [12.345, 99.999]):
        assert list(quantiles(values, *wanted)) == np.percentile(values, wanted).tolist()
    np.testing.assert_array_equal(values, before)


def test_little_is_sorted(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 2_000_000).astype(np.float32)
    sorted_ones: list[int] = []
    plain = module._neighbours

    def spied(flat, sample, rank):
        near = plain(flat, sample, rank)
        assert near is not None  # else all of it is sorted
        sorted_ones.append(rank)
        return near

    monkeypatch.setattr(module, "_neighbours", spied)
    quantiles(values, 0.5, 99.5)
    assert len(sorted_ones) == 2
