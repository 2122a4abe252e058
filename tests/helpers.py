"""What several test files share."""

import subprocess
import sys
from pathlib import Path

import jax

import flaxrnn

ROOT = Path(__file__).parents[1]
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
    classifier = flaxrnn.load(workdir)
    return jax.device_get(classifier._params)


def run(*arguments, cwd=ROOT, env=None, prefix=()):
    return subprocess.run(
        [*prefix, sys.executable, str(ROOT / "train.py"), *map(str, arguments)],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
