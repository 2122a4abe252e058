"""Reuters newswire topics, 46 classes: Embedding → LSTM → Dense.

python train.py --config configs/reuters.py          the default: padding masked
python train.py --config configs/reuters.py:keras    the chapter's protocol, to the letter
python train.py --config configs/reuters.py:demo     the embedded corpus, 3 epochs
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: "" (default), "keras" or "demo"."""
    config = default.get_config()
    config.data.max_padding = 0.03
    if variant == "keras":
        config.data.padding = "pre"
        config.data.validation = "test"
        config.train.averaging = False
        config.train.restore_best = False
    elif variant == "demo":
        config.data.source = "synthetic"
        config.train.epochs = 3
    elif variant:
        raise ValueError(f"variant {variant!r} is not one of keras, demo")
    return config
