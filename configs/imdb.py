"""IMDB sentiment, 2 classes: Embedding → Dropout → Conv1D → MaxPooling1D → LSTM → Dense.

python train.py --config configs/imdb.py          the default: padding is masked
python train.py --config configs/imdb.py:keras    the chapter's exact protocol
python train.py --config configs/imdb.py:fast     reaches the book's accuracy fastest
python train.py --config configs/imdb.py:best     the most accurate: n-grams beside an LSTM
python train.py --config configs/imdb.py:unlabelled   and with the 50,000 unlabelled reviews
python train.py --config configs/imdb.py:demo     the synthetic corpus, 100 tokens, 3 epochs

The model is that of a textbook chapter on RNNs, whose test accuracy is 0.8796. On two CPU cores the
default takes 44 s and reaches 0.8832, `:keras` 77 s and 0.8809, `:fast` 9.9 s after start-up and
0.9157, `:best` 179 s and 0.9261 (means over seeds, see "Results" in README.md).
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant: "" (the default) or one of those above."""
    config = default.get_config()
    config.task = "imdb"
    config.data.num_words = 5_000
    config.data.maxlen = 500
    config.data.validation_fraction = 0.25
    config.model.dropout = 0.5
    config.model.conv_filters = 64
    config.model.hidden_size = 55
    config.train.batch_size = 40
    config.train.epochs = 100
    config.train.patience = 3
    if variant == "keras":
        config.data.padding = "pre"
        config.train.averaging = False
        config.train.restore_best = False
    elif variant == "fast":  # chosen on validation: n-grams beside a small model, a single epoch
        config.data.num_words = 20_000
        config.data.maxlen = 100
        config.data.max_padding = 0.25
        config.data.validation_fraction = 0.1
        config.model.embedding_size = 32
        config.model.dropout = 0.0
        config.model.conv_pool = 8
        config.model.hidden_size = 32
        config.model.bidirectional = True
        config.model.word_ngrams = 2
        config.model.ngram_fit = "quick"
        config.train.batch_size = 128
        config.train.learning_rate = 1.2e-2
        config.train.averaging = False
        config.train.schedule = "warmup_linear"
        config.train.epochs = 1
    elif variant in ("best", "unlabelled"):  # chosen on validation; no convolution
        config.data.num_words = 30_000
        config.data.maxlen = 512
        config.data.max_padding = 0.25
        config.data.validation_fraction = 0.1
        config.model.conv_filters = 0
        default.beside_ngrams(config)
        config.model.dropout = 0.0
        config.model.spatial_dropout = 0.3
        config.model.word_dropout = 0.2
        config.model.word_ngrams = 3
        config.model.ratio_ngrams = 3
        config.train.batch_size = 64
        config.train.learning_rate = 3e-3
        config.train.label_smoothing = 0.05
        config.train.epochs = 2
        config.train.refit = True
        if variant == "unlabelled":
            config.data.unlabelled = "dataset"
            config.train.refit = False  # it would double the time for 2,500 texts more
            config.train.batch_size = 128
            config.train.learning_rate = 4e-3
            config.train.epochs = 3
    elif variant == "demo":
        config.data.source = "synthetic"
        config.data.maxlen = 100
        config.train.epochs = 3
    elif variant:
        raise ValueError(f"variant {variant!r} is not one of keras, fast, best, unlabelled, demo")
    return config
