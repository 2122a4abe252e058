"""Labels texts with the exported classifier in a folder, without flaxrnn.

    from load import load

    labels, probabilities = load(".")(["What a joy!", "A film to fall asleep in."])

Needs numpy and, for `program.jax`, jax, flatbuffers and safetensors; for `model.onnx`, onnxruntime.
For n-grams also safetensors, for subwords sentencepiece.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH_SIZE = 64


def load(folder: str | Path) -> Callable[[list], tuple[list, np.ndarray]]:
    """Loads the classifier.

    Returns:
        A function of N texts that returns the likeliest label of each, or all of them if there may
        be several, and the probabilities of all labels, float32 [N, C]. A text is a string or,
        unless the classifier has n-grams, a list of its tokens.
    """
    folder = Path(folder)
    vocabulary = json.loads((folder / "vocabulary.json").read_text("utf-8"))
    label_names = json.loads((folder / "labels.json").read_text("utf-8"))
    limits = None
    if (folder / "thresholds.json").exists():
        limits = np.array(json.loads((folder / "thresholds.json").read_text("utf-8")))
    program = _program(folder)
    ids = {word: i for i, word in enumerate(vocabulary["words"], 4)}
    splitters = _module(folder, "splitting").SPLITTERS
    tokenize = _tokenizer(vocabulary["tokenizer"], splitters)
    extras = _extras(folder, splitters)

    def classify(texts: list) -> tuple[list, np.ndarray]:
        tokenized = [tokenize(text) if isinstance(text, str) else text for text in texts]
        if not all(tokenized):
            raise ValueError("a text is empty: it has no words")
        probabilities = np.zeros((len(texts), len(label_names)), np.float32)
        order = np.argsort([len(words) for words in tokenized], kind="stable")  # for less padding
        for begin in range(0, len(texts), BATCH_SIZE):
            rows = order[begin : begin + BATCH_SIZE]
            batch = [tokenized[i] for i in rows]
            # Rounded up to powers of two, because each new shape is compiled.
            shape = [1 << (n - 1).bit_length() for n in (len(batch), 1 + max(map(len, batch)))]
            tokens, lengths = np.zeros(shape, np.int32), np.ones(shape[0], np.int32)  # 0 pads
            for i, words in enumerate(batch):  # 1 starts a text, 2 is an unknown word
                row = [1, *(ids.get(word, 2) for word in words)]
                tokens[i, : len(row)], lengths[i] = row, len(row)
            more = extras([texts[i] for i in rows], batch, shape)
            probabilities[rows] = program(tokens, lengths, *more)[: len(batch)]
        if not np.isfinite(probabilities).all():
            raise ValueError("what the model computes for a text is not finite")
        if limits is None:
            return [label_names[i] for i in probabilities.argmax(axis=1)], probabilities
        labels = [[label_names[i] for i in np.flatnonzero(row > limits)] for row in probabilities]
        return labels, probabilities

    return classify


def _program(folder: Path) -> Callable[..., np.ndarray]:
    """Tokens [B, T], lengths [B] and, with n-grams, scores [B, C] → probabilities [B, C]."""
    if (folder / "model.onnx").exists():
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "model.onnx")
        names = [argument.name for argument in session.get_inputs()]
        return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))[0]
    import jax.export
    from safetensors.numpy import load_file

    parameters = jax.device_put(load_file(folder / "parameters.safetensors"))
    content = bytearray((folder / "program.jax").read_bytes())
    program = jax.jit(jax.export.deserialize(content).call)
    return lambda *inputs: np.asarray(program(parameters, *inputs))


def _extras(
    folder: Path, splitters: dict[str, Any]
) -> Callable[[list, list[list[str]], list[int]], list[np.ndarray]]:
    """A function of texts, their tokens and [B, T]: what else the program is given of them.

    It returns the scores of n-grams, float32 [B, C], if the model has them, then the features of
    tokens, float32 [B, T, F], if it reads any.
    """
    if not (folder / "ngrams.py").exists():
        return lambda *_: []
    module, classifier, ratios = _module(folder, "ngrams"), None, None
    if (folder / module.VIEWS).exists():
        contents = {name: (folder / name).read_bytes() for name in module.FILES}
        classifier = module.NgramClassifier.from_files(contents)
    if (folder / module.RATIOS).exists():
        ratios = module.RatioTable.from_file((folder / module.RATIOS).read_bytes())

    def extras(texts: list, tokenized: list[list[str]], shape: list[int]) -> list[np.ndarray]:
        arrays = []
        if classifier is not None:
            views = [[splitters[view.kind](text) for text in texts] for view in classifier.views]
            scores = classifier.score_tokens(views)
            arrays.append(np.resize(scores, (shape[0], scores.shape[1])))
        if ratios is not None:
            features = np.zeros((*shape, ratios.num_features), np.float32)
            for i, words in enumerate(tokenized):
                features[i, 1 : len(words) + 1] = ratios.of_tokens(words)
            arrays.append(features)
        return arrays

    return extras


def _tokenizer(description: dict[str, str], splitters: dict[str, Any]) -> Callable[[str], list]:
    if description["kind"] != "subword":
        return splitters[description["kind"]]
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(
        model_proto=base64.b64decode(description["model"])
    )
    # Characters are normalized as subwords are: joined again, they are the normalized text.
    return lambda text: pieces.encode("".join(splitters["characters"](text)), out_type=str)


def _module(folder: Path, name: str) -> Any:
    """The module `name`, which lies next to this one in the folder."""
    spec = importlib.util.spec_from_file_location(f"exported_{name}", folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module
