import numpy as np
import pytest

from flaxrnn.training import intervals, metrics


def test_the_interval_of_a_share_is_that_of_wilson():
    assert intervals.of_share(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998
    assert intervals.of_share(5, 5)[1] == pytest.approx(1)


def test_the_interval_of_macro_f1_is_that_of_repeated_experiments():
    """Of 60 test sets of 300 texts, about 95% have an interval with the macro-F1 of all texts."""
    rng = np.random.default_rng(1)

    def experiment(size):
        labels = rng.choice(3, size, p=[0.6, 0.3, 0.1])
        right = rng.random(size) < np.array([0.9, 0.7, 0.5])[labels]
        return labels, np.where(right, labels, rng.integers(3, size=size))

    truth = metrics.of_predictions(*experiment(400_000), 3)["macro_f1"]
    found = [intervals.of_macro_f1(*experiment(300), 3) for _ in range(60)]
    assert 0.88 <= np.mean([low <= truth <= high for low, high in found]) <= 1
    assert 0.06 < np.mean([high - low for low, high in found]) < 0.16


def test_the_interval_of_macro_f1_is_the_same_every_time_and_within_its_range():
    labels = np.array([0, 0, 1, 1, 2])
    first, again = (intervals.of_macro_f1(labels, labels % 2, 3) for _ in range(2))
    assert first == again
    assert 0 <= first[0] < metrics.of_predictions(labels, labels % 2, 3)["macro_f1"] < first[1] <= 1
    all_right = intervals.of_macro_f1(labels, labels, 3)
    assert all_right == pytest.approx(intervals.of_share(5, 5))
    assert intervals.show((0.5, 1)) == "0.5000 to 1.0000"
