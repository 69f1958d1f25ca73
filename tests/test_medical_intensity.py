"""Grey values: exact windows, percentiles of the whole volume, channels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonai.core.errors import InputError
from samonai.domains.medical.intensity import CT_WINDOWS, Intensity, picture, to_grey
from samonai.domains.medical.volume import FormatFacts, Volume, quantiles


def make_volume(data: np.ndarray, modality: str | None = None, valid=None) -> Volume:
    facts = FormatFacts("dicom", modality=modality)
    return Volume(data.astype(np.float32), np.eye(4), "v", facts, valid=valid)


def ct(seed: int = 0) -> Volume:
    return make_volume(np.random.default_rng(seed).uniform(-1000, 1500, (4, 3, 5)))


def cut(volume: Volume, intensity: Intensity, axis: int = 2, index: int = 0) -> np.ndarray:
    return picture(volume, axis, index, intensity, intensity.ranges(volume))


@pytest.mark.parametrize(
    ("name", "level", "width"), [("soft_tissue", 40, 400), ("lung", -600, 1500)]
)
def test_presets_and_explicit_windows_agree(name: str, level: float, width: float) -> None:
    by_name = cut(ct(), Intensity(name))
    by_value = cut(ct(), Intensity(level=level, width=width))
    np.testing.assert_array_equal(by_name, by_value)
    assert CT_WINDOWS[name] == (level, width)


def test_window_maps_its_ends_to_black_and_white() -> None:
    values = np.array([-2000, -160, -159.5, 40, 239.5, 240, 9000], np.float32)
    np.testing.assert_array_equal(to_grey(values, (-160, 240)), [0, 0, 0, 128, 255, 255, 255])


def test_constant_volume_is_black() -> None:
    assert cut(make_volume(np.full((3, 3, 3), 7)), Intensity("percentile")).max() == 0


def test_percentiles_are_those_of_the_volume_and_not_of_the_slice() -> None:
    data = np.zeros((10, 10, 4))
    data[:, :, 3] = 100
    intensity = Intensity("percentile", lower=0, upper=100)
    assert cut(make_volume(data), intensity, index=0).max() == 0
    assert cut(make_volume(data), intensity, index=3).min() == 255
    data[:, :, 3] = 50
    data[0, 0, 1] = 100
    assert (cut(make_volume(data), intensity, index=3) == 128).all()


def test_percentiles_leave_padding_out() -> None:
    data = np.random.default_rng(0).uniform(10, 20, (6, 6, 6))
    valid = np.ones(data.shape, bool)
    valid[:, :, :3] = False
    data[:, :, :3] = -5000
    volume = make_volume(data, valid=valid)
    low, high = Intensity("percentile", lower=0, upper=100).ranges(volume)[0]
    assert 10 <= low < high <= 20


@pytest.mark.parametrize(
    ("lowest", "modality", "chosen"),
    [
        (-1000, None, "soft_tissue"),
        (-500, None, "soft_tissue"),
        (-499, None, "percentile"),
        (0, None, "percentile"),
        (0, "CT", "soft_tissue"),
        (-1000, "MR", "percentile"),
    ],
)
def test_auto_follows_its_stated_rule(lowest: float, modality: str | None, chosen: str) -> None:
    data = np.linspace(lowest, 1000, 27).reshape(3, 3, 3)
    assert Intensity().chosen_window(make_volume(data, modality)) == chosen


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_repeat_the_edge(axis: int) -> None:
    volume, intensity = ct(), Intensity("lung", channels="neighbours")
    grey = Intensity("lung")
    last = volume.shape[axis] - 1
    for index, steps in ((0, (0, 0, 1)), (1, (0, 1, 2)), (last, (last - 1, last, last))):
        image = cut(volume, intensity, axis, index)
        for channel, step in enumerate(steps):
            expected = cut(volume, grey, axis, step)[..., 0]
            np.testing.assert_array_equal(image[..., channel], expected)


def test_three_windows() -> None:
    image = cut(ct(), Intensity(channels="windows"))
    for channel, name in enumerate(("lung", "soft_tissue", "bone")):
        np.testing.assert_array_equal(image[..., channel], cut(ct(), Intensity(name))[..., 0])


def test_three_windows_need_hounsfield_units() -> None:
    with pytest.raises(InputError, match="needs Hounsfield units"):
        cut(make_volume(np.arange(27).reshape(3, 3, 3)), Intensity(channels="windows"))


@settings(deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    kind=st.sampled_from(["whole", "negative", "wide", "real", "constant"]),
    order=st.sampled_from("CF"),
    shares=st.tuples(st.floats(0, 50), st.floats(50, 100)),
    seed=st.integers(0, 99),
)
def test_percentiles_equal_numpys(shape, kind, order, shares, seed) -> None:
    generator = np.random.default_rng(seed)
    values = {
        "whole": generator.integers(0, 40, shape),
        "negative": generator.integers(-1024, 3072, shape),
        "wide": generator.integers(-(2**22), 2**22, shape),  # too many to count
        "real": generator.normal(0, 100, shape),
        "constant": np.full(shape, -7),
    }[kind].astype(np.float32, order=order)
    expected = np.percentile(values.astype(np.float64), shares)
    np.testing.assert_allclose(quantiles(values, *shares), expected, rtol=1e-6, atol=1e-6)


def test_percentiles_of_more_values_than_are_counted_at_once(monkeypatch) -> None:
    monkeypatch.setattr("samonai.domains.medical.volume._AT_ONCE", 7)
    values = np.random.default_rng(0).integers(-50, 50, (5, 4, 3)).astype(np.float32)
    np.testing.assert_allclose(quantiles(values, 10, 90), np.percentile(values, [10, 90]))
    values[-1, -1, -1] += 0.5  # found in the last part only
    np.testing.assert_allclose(
        quantiles(values, 10, 90), np.percentile(values, [10, 90]), rtol=1e-6
    )
