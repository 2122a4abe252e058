"""The token after each token: Embedding → LSTM → Dense at every step; and texts from one token.

python train.py --config configs/language_model.py --workdir runs/brackets
python -m flaxrnn.generate --workdir runs/brackets 3 9

The texts are balanced brackets behind the number of their pairs, 3(()()). No model of them has a
loss below 0.51 nats a token; one that knows only how frequent the characters are has 1.33. From one
token, the number, the trained model generates the rest. The texts of other corpora do as well:

python train.py --config configs/reuters.py --config.model.target=next

And texts of your own, without labels: a .txt, a text a line, or what `configs/text.py` reads.

python train.py --config configs/language_model.py:text --config.data.path=poems.txt
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: "" (brackets) or "text", with `data.path` left to say."""
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
