from configs import imdb
from flaxrnn.config import parse
from flaxrnn.nn import models
from flaxrnn.nn.summary import summary


def test_summary_lists_layers_shapes_and_totals():
    lines = summary(models.build(parse(imdb.get_config()).model, 5_000, 2), 40, 500).splitlines()
    rows = [line.split() for line in lines]
    assert ["conv", "(Conv1D)", "(None,", "496,", "64)", "32,064"] in rows
    assert ["max_pool", "(MaxPool1D)", "(None,", "124,", "64)", "0"] in rows
    assert ["lstm_0", "(LSTM)", "(None,", "124,", "55)", "26,400"] in rows
    assert lines[-1] == "Total parameters: 558,520 (2.13 MiB)"
