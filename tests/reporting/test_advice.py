"""What is doubtful about a run, in words."""

import numpy as np
import pytest

from flaxrnn.reporting import advice


def warnings(val_accuracy, train_accuracy, class_counts, refit=False):
    result = {"val_accuracy": val_accuracy, "refit": refit}
    return list(advice.warnings(result, train_accuracy, np.array(class_counts)))


def test_sound_run():
    assert warnings(0.8, 0.9, [60, 50]) == []


@pytest.mark.parametrize("class_counts", [[50, 49], [96, *[1] * 23]])
def test_too_few_texts_to_validate_on(class_counts):
    count, classes = sum(class_counts), len(class_counts)
    (found,) = warnings(0.95, 0.95, class_counts)
    assert found.startswith(f"With {count} texts to validate on, {count / classes:.1f} per class")
    assert f"uncertain by {2.4 if count == 99 else 2.1} points either way" in found
    assert found.endswith(
        "validate on more (data.validation_fraction, if they are drawn); train.refit=True trains on"
        " these texts in the end."
    )
    (found,) = warnings(0.95, 0.95, class_counts, refit=True)
    assert found.endswith("data.validation_fraction, if they are drawn).")


def test_thousands_of_classes_with_few_texts_each_are_enough_together():
    assert warnings(0.5, 0.5, [1] * 20_000) == []


def test_perfect_accuracy_on_few_texts_is_uncertain():
    (found,) = warnings(1.0, 1.0, [5, 5])
    assert "uncertain by 8.7 points" in found  # not 0


@pytest.mark.parametrize(("accuracy", "learned"), [(0.63, False), (0.66, True)])
def test_nothing_learned_is_within_a_standard_error_of_the_largest_class(accuracy, learned):
    """0.6 + sqrt(0.6 · 0.4 / 100) = 0.649."""
    found = warnings(accuracy, accuracy, [60, 40])
    assert len(found) == (not learned)
    if found:
        assert "accuracy, 63.0%, is not clearly above 60.0%, that of" in found[0]
        assert "train.batch_size=0" in found[0]


@pytest.mark.parametrize(("train", "overfit"), [(0.94, False), (0.96, True)])
def test_training_far_ahead_of_validation(train, overfit):
    found = warnings(0.8, train, [60, 50])
    assert len(found) == overfit
    if found:
        assert "accuracy of 96.0% against 80.0%" in found[0]
        assert "model.output_dropout" in found[0]


def test_labels_without_a_threshold_of_their_own_are_counted():
    labels = np.zeros((40, 3), np.uint8)
    labels[:4, 0] = labels[:5, 1] = labels[:, 2] = 1
    (found,) = advice.of_labels({"val_micro_f1": 0.1}, labels)
    assert found.startswith("With 40 texts to validate on, 1 of 3 labels are those of fewer than 5")
    assert list(advice.of_labels({"val_micro_f1": 0.1}, labels[:, 1:])) == []
    (found,) = advice.of_labels({"val_micro_f1": 0.0}, labels[:, 1:])
    assert found.startswith("Nothing was learned")
