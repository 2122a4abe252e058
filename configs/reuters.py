"""Reuters newswire topics, 46 classes: Embedding → LSTM → Dense.

python train.py --config configs/reuters.py          the default: padding masked
python train.py --config configs/reuters.py:keras    the chapter's protocol, to the letter
python train.py --config configs/reuters.py:fast     the least time to the book's accuracy
python train.py --config configs/reuters.py:demo     the embedded corpus, 3 epochs
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: "" (default), "keras", "fast" or "demo"."""
    config = default.get_config()
    config.data.max_padding = 0.03
    if variant == "keras":
        config.data.padding = "pre"
        config.data.validation = "test"
        config.train.averaging = False
        config.train.restore_best = False
    elif variant == "fast":  # chosen on validation: more of each text, a smaller LSTM, one cycle
        config.data.maxlen = 150
        config.data.max_padding = 0.2
        config.model.hidden_size = 48
        config.model.pooling = "max"
        config.train.batch_size = 64
        config.train.learning_rate = 1e-2
        config.train.schedule = "warmup_linear"
        config.train.epochs = 6
    elif variant == "demo":
        config.data.source = "synthetic"
        config.train.epochs = 3
    elif variant:
        raise ValueError(f"variant {variant!r} is not one of keras, fast, demo")
    return config
