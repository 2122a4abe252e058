"""Every field at its default; each task's config starts from here.

`flaxrnn/config/fields.py` declares the fields, docs/config.md lists them.
"""

from ml_collections import ConfigDict

from flaxrnn import config


def get_config() -> ConfigDict:
    """Returns the defaults."""
    return config.default_config()


def beside_ngrams(config: ConfigDict) -> None:
    """Sets up the network that is trained beside n-grams: long texts, strongly regularized."""
    config.model.embedding_size = 64
    config.model.hidden_size = 64
    config.model.bidirectional = True
    config.model.pooling = "max_mean"
    config.model.segment = 64
    config.model.spatial_dropout = 0.25
    config.model.output_dropout = 0.5
    config.train.optimizer = "adamw"
    config.train.weight_decay = 0.01
    config.train.clip_norm = 1.0
    config.train.schedule = "warmup_cosine"
    config.train.calibrate = True
