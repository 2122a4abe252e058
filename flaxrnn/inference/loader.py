"""Labels texts by the exported classifier in a folder, without flaxrnn.

    from load import load

    labels, probabilities = load(".")(["What a joy!", "A film to fall asleep in."])

Needs jax, flatbuffers, numpy and safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax import export
from safetensors.numpy import load_file

SPACES = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))
TEXTS_AT_ONCE = 64


def load(folder: str | Path) -> Callable[[list], tuple[list[str], np.ndarray]]:
    """The classifier: texts → their likeliest labels, and the probabilities of all, [N, C].

    A text is a string or a list of its tokens; only Keras' tokenizer is known here.
    """
    folder = Path(folder)
    vocabulary = json.loads((folder / "vocabulary.json").read_text("utf-8"))
    names = json.loads((folder / "labels.json").read_text("utf-8"))
    parameters = jax.device_put(load_file(folder / "parameters.safetensors"))
    program = jax.jit(export.deserialize(bytearray((folder / "program.jax").read_bytes())).call)
    ids = {word: i for i, word in enumerate(vocabulary["words"], 4)}  # 0 pads, 1 starts a text

    def encode(text: str | list[str]) -> list[int]:
        if isinstance(text, str):
            if (kind := vocabulary["tokenizer"]["kind"]) != "keras":
                raise ValueError(f"the tokenizer is {kind!r}: give the list of tokens of each text")
            text = [word for word in text.lower().translate(SPACES).split(" ") if word]
        if not text:
            raise ValueError("a text is empty: not a single word")
        return [1, *(ids.get(word, 2) for word in text)]

    def classify(texts: list) -> tuple[list[str], np.ndarray]:
        rows = [encode(text) for text in texts]
        found = np.zeros((len(rows), len(names)), np.float32)
        for at in range(0, len(rows), TEXTS_AT_ONCE):
            some = rows[at : at + TEXTS_AT_ONCE]
            # Powers of two: each shape is compiled, so there should be few.
            shape = [1 << (n - 1).bit_length() for n in (len(some), max(map(len, some)))]
            tokens, lengths = np.zeros(shape, np.int32), np.ones(shape[0], np.int32)
            for i, row in enumerate(some):
                tokens[i, : len(row)], lengths[i] = row, len(row)
            found[at : at + len(some)] = program(parameters, tokens, lengths)[: len(some)]
        return [names[i] for i in found.argmax(axis=1)], found

    return classify
