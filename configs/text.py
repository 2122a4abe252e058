"""Your own texts, any number of classes: a bidirectional LSTM and a linear classifier of n-grams.

python train.py --config configs/text.py --config.data.path=reviews.csv
python train.py --config configs/text.py --config.data.path=reviews/ --config.data.tokenizer=subword
python train.py --config configs/text.py --config.data.path=news.csv --config.data.label_separator=,

`data.path` is a .csv, .tsv, .json, .jsonl or .parquet file with columns "text" and "label"
(`data.text_field`, `data.label_field`), a .txt file with fastText's __label__, a folder with one
subfolder of .txt files per class, or the name of a TFDS dataset.

The tokenizer is chosen for the script of the texts, batch size and epochs for their number, n-grams
and how they are fitted for the number of classes: of more than 300 there are none. Both classifiers
learn by themselves; validation chooses how much each one counts.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Returns the config, which needs `data.path`."""
    config = default.get_config()
    config.task = "text"
    config.data.tokenizer = "auto"
    config.data.num_words = 8_000
    config.data.maxlen = 256
    config.data.max_padding = 0.3
    config.data.validation = "stratified"
    default.beside_ngrams(config)
    config.model.word_dropout = 0.125
    config.model.word_ngrams = -1
    config.model.character_ngrams = -1
    config.model.ngram_fit = "auto"
    config.train.batch_size = 0
    config.train.eval_batch_size = 100
    config.train.epochs = 0
    config.train.learning_rate = 2e-3
    config.train.label_smoothing = 0.05
    return config
