"""Your own texts, any number of classes: Embedding → bidirectional LSTM → max over time → Dense.

python train.py --config configs/text.py --config.data.path=reviews.csv
python train.py --config configs/text.py --config.data.path=reviews/ --config.data.tokenizer=subword

`data.path` is a .csv, .tsv or .jsonl file with columns "text" and "label" (`data.text_field`,
`data.label_field`), a folder with one subfolder of .txt files per class, or the name of a TFDS
dataset.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Returns the config, which needs `data.path`."""
    config = default.get_config()
    config.task = "text"
    config.data.num_words = 10_000
    config.data.maxlen = 250
    config.model.embedding_size = 64
    config.model.dropout = 0.2
    config.model.hidden_size = 64
    config.model.bidirectional = True
    config.model.pooling = "max"
    config.train.batch_size = 32
    config.train.learning_rate = 2e-3
    config.train.epochs = 30
    config.train.patience = 3
    return config
