import numpy as np
import pytest

from flaxrnn.training.confidence import Bin, Confidence, Coverage

FOUR = Confidence(np.array([0.95, 1.0, 0.61, 0.65]), np.array([True, False, True, True]))


def test_bins_and_their_error():
    assert FOUR.bins() == [
        Bin(2, pytest.approx(0.63), 1.0),
        Bin(2, pytest.approx(0.975), 0.5),  # a probability of 1 is in the last one
    ]
    assert FOUR.calibration_error == pytest.approx((2 * 0.37 + 2 * 0.475) / 4)
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 100_000)
    assert Confidence(p, rng.random(len(p)) < p).calibration_error < 0.01


def test_coverage_counts_texts_from_the_threshold_on():
    assert FOUR.above(0.65) == Coverage(0.65, 0.75, pytest.approx(2 / 3))
    assert FOUR.above(0.0) == Coverage(0.0, 1.0, 0.75)
    nothing = Confidence(np.array([0.5]), np.array([True])).above(0.9)
    assert nothing.share == 0
    assert np.isnan(nothing.accuracy)
    assert [each.share for each in FOUR.curve()] == [1, 0.75, 0.5, 0.25]
