"""Recurrent layers and the text model, as linen modules."""

from flaxrnn.nn.cells import GRU, LSTM, SimpleRNN
from flaxrnn.nn.recurrence import Bidirectional, EmbeddingLookup, Recurrent

__all__ = ["GRU", "LSTM", "Bidirectional", "EmbeddingLookup", "Recurrent", "SimpleRNN"]
