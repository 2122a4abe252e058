"""A tagger, which predicts a label for each token: Embedding → LSTM → Dense at every step.

python train.py --config configs/tagging.py

The texts are balanced brackets such as 3(()()); the tag of a character is the number of brackets
open after it, here 0 1 2 1 2 1 0. The model has to learn to count.
"""

from ml_collections import ConfigDict

from configs import language_model


def get_config() -> ConfigDict:
    """Returns the config; corpus and sizes are those of `language_model`."""
    config = language_model.get_config()
    config.model.target = "tags"
    config.train.epochs = 10
    return config
