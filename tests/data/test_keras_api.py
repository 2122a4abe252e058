import numpy as np
import pytest

import flaxrnn
from flaxrnn.errors import ConfigError


def test_load_data_gives_what_keras_users_know(data_dir):
    options = {"source": "synthetic", "data_dir": data_dir}
    (x_train, y_train), (x_test, y_test) = flaxrnn.load_data("reuters", num_words=500, **options)
    assert len(x_train) == len(y_train) == 8_982
    assert len(x_test) == len(y_test) == 2_246
    assert isinstance(x_train, list)
    assert max(row.max() for row in x_train) == 499
    assert all(row[0] == 1 for row in x_train)
    (padded, _), _ = flaxrnn.load_data("reuters", num_words=500, maxlen=40, **options)
    assert padded.shape == (8_982, 40)
    row = x_train[0][-40:]
    np.testing.assert_array_equal(padded[0, 40 - len(row) :], row)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "mnist"}, "task: 'mnist' is not one of reuters"),
        ({"task": "imdb", "source": "web"}, "data.source: 'web' is not one of auto"),
        ({"task": "imdb", "num_words": 3}, "num_words: 3"),
        ({"task": "imdb", "maxlen": 0}, "maxlen: 0"),
        ({"task": "brackets"}, "task: 'brackets' has one label per token"),
    ],
)
def test_load_data_refuses_the_impossible(arguments, message):
    with pytest.raises(ConfigError, match=message):
        flaxrnn.load_data(**arguments)
