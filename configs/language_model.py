"""A language model, which predicts the next token: Embedding → LSTM → Dense at every step.

python train.py --config configs/language_model.py --workdir runs/brackets
python -m flaxrnn.generate --workdir runs/brackets 3 9

Each text is a number and that many pairs of balanced brackets, 3(()()). The lowest possible loss is
0.51 nats per token; a model that only knows the character frequencies reaches 1.33. Given the
number, the trained model generates the brackets. Other corpora work, too:

python train.py --config configs/reuters.py --config.model.target=next

So do your own unlabelled texts: a .txt file with one text per line, or any format that
`configs/text.py` reads.

python train.py --config configs/language_model.py:text --config.data.path=poems.txt
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """Returns the config of a variant: "" (brackets) or "text", which needs `data.path`."""
    config = default.get_config()
    config.data.tokenizer = "characters"
    config.model.target = "next"
    config.train.batch_size = 32
    config.train.learning_rate = 1e-2
    config.train.schedule = "warmup_linear"
    config.train.averaging = False
    config.train.epochs = 20
    if variant == "text":
        config.task = "text"
        config.data.maxlen = 200
        config.model.embedding_size = 64
        config.model.hidden_size = 256
        return config
    if variant:
        raise ValueError(f"variant {variant!r} is not text")
    config.task = "brackets"
    config.data.num_words = 15  # 11 characters, and the special ids
    config.data.maxlen = 20
    config.data.max_padding = 0.5  # one length: the texts are short
    config.model.embedding_size = 16
    config.model.hidden_size = 32
    return config
