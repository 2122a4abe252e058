"""Labels texts with the exported classifier in a folder, without flaxrnn.

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

TO_SPACE = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n', " "))
BATCH_SIZE = 64


def load(folder: str | Path) -> Callable[[list], tuple[list[str], np.ndarray]]:
    """Loads the classifier.

    Returns:
        A function of N texts that returns the likeliest label of each and the probabilities of all
        labels, float32 [N, C]. A text is a string or a list of its tokens; it must be a list unless
        the tokenizer is that of Keras, the only one implemented here.
    """
    folder = Path(folder)
    vocabulary = json.loads((folder / "vocabulary.json").read_text("utf-8"))
    label_names = json.loads((folder / "labels.json").read_text("utf-8"))
    parameters = jax.device_put(load_file(folder / "parameters.safetensors"))
    program = jax.jit(export.deserialize(bytearray((folder / "program.jax").read_bytes())).call)
    ids = {word: i for i, word in enumerate(vocabulary["words"], 4)}

    def encode(text: str | list[str]) -> list[int]:
        if isinstance(text, str):
            if (kind := vocabulary["tokenizer"]["kind"]) != "keras":
                raise ValueError(f"the tokenizer is {kind!r}: pass each text as a list of tokens")
            text = [word for word in text.lower().translate(TO_SPACE).split(" ") if word]
        if not text:
            raise ValueError("a text is empty: it has no words")
        return [1, *(ids.get(word, 2) for word in text)]  # 1 starts a text, 2 is an unknown word

    def classify(texts: list) -> tuple[list[str], np.ndarray]:
        encoded = [encode(text) for text in texts]
        probabilities = np.zeros((len(encoded), len(label_names)), np.float32)
        for begin in range(0, len(encoded), BATCH_SIZE):
            batch = encoded[begin : begin + BATCH_SIZE]
            # Rounded up to powers of two, because each new shape is compiled.
            shape = [1 << (n - 1).bit_length() for n in (len(batch), max(map(len, batch)))]
            tokens, lengths = np.zeros(shape, np.int32), np.ones(shape[0], np.int32)  # 0 pads
            for i, row in enumerate(batch):
                tokens[i, : len(row)], lengths[i] = row, len(row)
            output = program(parameters, tokens, lengths)
            probabilities[begin : begin + len(batch)] = output[: len(batch)]
        return [label_names[i] for i in probabilities.argmax(axis=1)], probabilities

    return classify
