"""Reuters newswire topics, 46 classes: Embedding → LSTM → Dense.

python train.py --config configs/reuters.py          the default: padding is masked
python train.py --config configs/reuters.py:keras    the chapter's exact protocol
python train.py --config configs/reuters.py:fast     reaches the book's accuracy fastest
python train.py --config configs/reuters.py:best     the most accurate: n-grams beside a large LSTM
python train.py --config configs/reuters.py:demo     the synthetic corpus, 3 epochs

The model is that of a textbook chapter on RNNs, whose test accuracy is 0.7177. On two CPU cores the
default takes 39 s and reaches 0.7182, `:keras` 46 s and 0.7177, `:fast` 7.0 s after start-up and
0.8240, `:best` 126 s and 0.8372 (means over seeds, see "Results" in README.md).
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant: "" (the default), "keras", "fast", "best" or "demo"."""
    config = default.get_config()
    config.data.max_padding = 0.03
    if variant == "keras":
        config.data.padding = "pre"
        config.data.validation = "test"
        config.train.averaging = False
        config.train.restore_best = False
    elif variant == "fast":  # chosen on validation: n-grams beside a smaller LSTM, two epochs
        config.data.maxlen = 150
        config.data.max_padding = 0.4
        config.model.hidden_size = 48
        config.model.pooling = "max"
        config.model.word_ngrams = 1
        config.model.ngram_fit = "quick"
        config.train.batch_size = 128
        config.train.learning_rate = 1.5e-2
        config.train.schedule = "warmup_linear"
        config.train.epochs = 2
    elif variant == "best":  # chosen on validation
        config.data.num_words = 20_000
        config.data.maxlen = 256
        config.data.max_padding = 0.25
        default.beside_ngrams(config)
        config.model.word_dropout = 0.125
        config.model.word_ngrams = 1
        config.train.batch_size = 64
        config.train.learning_rate = 3e-3
        config.train.label_smoothing = 0.1
        config.train.epochs = 8
        config.train.refit = True
    elif variant == "demo":
        config.data.source = "synthetic"
        config.train.epochs = 3
    elif variant:
        raise ValueError(f"variant {variant!r} is not one of keras, fast, best, demo")
    return config
