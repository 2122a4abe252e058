"""What several test files share."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from flaxrnn.data import tokenizers
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.inference import predictor
from flaxrnn.nn import models
from flaxrnn.training import checkpoint

ROOT = Path(__file__).parents[1]
WORDS = ["the", "a", "of", "and", "good", "bad", "not", "very", "film", "plot", "oil", "grain"]
RESULT = {
    "task", "dataset", "data_source", "seed", "parameters", "epochs", "best_epoch", "val_loss",
    "val_accuracy", "test_loss", "test_accuracy", "test_macro_f1", "test_examples", "skipped_steps",
    "seconds",
    "train_examples_per_second", "train_tokens_per_second", "buckets", "resident", "memory",
    "devices", "versions", "commit", "command",
}  # fmt: skip


def shrink(config, epochs=2, **model):
    config.data.maxlen = 20
    config.data.num_words = 16
    config.data.validation_fraction = 0.2
    config.model.update({"embedding_size": 6, "hidden_size": 5, **model})
    config.model.conv_filters = min(config.model.conv_filters, 4)
    config.train.update({"batch_size": 8, "eval_batch_size": 7, "epochs": epochs})
    return config


def weights(workdir):
    return predictor.load_saved_model(workdir).params


def saved_workdir(folder, config, label_names, tokenizer="keras"):
    """What a run leaves for predictions, with random parameters that tell texts apart."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    (folder / "labels.json").write_text(json.dumps(label_names))
    Vocabulary(WORDS, tokenizers.Tokenizer(tokenizer)).save(folder / "vocabulary.json")
    model = models.build(config.model, config.data.num_words, len(label_names))
    shapes = jax.eval_shape(lambda: models.init_params(model, jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    checkpoint.write_weights(folder / "checkpoints", params)
    return folder


loaded = functools.cache(predictor.load)


def run(*arguments, cwd=ROOT, env=None, prefix=()):
    return subprocess.run(
        [*prefix, sys.executable, str(ROOT / "train.py"), *map(str, arguments)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
