"""Recurrent layers and the text model, as linen modules."""

from flaxrnn.nn.recurrence import GRU, LSTM, Bidirectional, Recurrent, SimpleRNN

__all__ = ["GRU", "LSTM", "Bidirectional", "Recurrent", "SimpleRNN"]
