"""flaxrnn: recurrent text classifiers on JAX and Flax.

flaxrnn.fit(texts, labels)                              a classifier of texts in memory
flaxrnn.load_data("imdb", num_words=5000, maxlen=500)   the corpora, as Keras users know them
flaxrnn.to_texts(x_train, word_index)                   their words
flaxrnn.train(config, workdir)                          the result of a run
flaxrnn.load(workdir).predict(texts)                    labels and probabilities
flaxrnn.load(workdir).generate(prompts)                 more text, by a language model
flaxrnn.nn.LSTM(100)                                    the layers, as linen modules
"""

import importlib
from typing import Any

_LAZY = {  # name → module and attribute; imported when first used, JAX and TFDS take seconds
    "load_data": ("flaxrnn.data.keras_api", "load_data"),
    "fit": ("flaxrnn.fitting", "fit"),
    "get_word_index": ("flaxrnn.data.keras_api", "get_word_index"),
    "to_texts": ("flaxrnn.data.keras_api", "to_texts"),
    "train": ("flaxrnn.loop", "train_and_evaluate"),
    "load": ("flaxrnn.inference.predictor", "load"),
}
_MODULES = ("nn",)

__all__ = [*_LAZY, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"flaxrnn.{name}")
    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module 'flaxrnn' has no attribute {name!r}")
