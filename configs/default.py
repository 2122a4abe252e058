"""Every field of a config, its unit and its default; a task's config changes some of them."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The defaults; each task's config starts from them."""
    return ConfigDict(
        {
            "task": "reuters",  # reuters | reuters_clean | imdb | brackets | text | module:Builder
            "seed": 0,  # of initial values, order, dropout; of task text, of the test split too
            "compile_cache": placeholder(str),  # compiled programs; unset: JAX', ~/.cache/flaxrnn
            "data": {
                "source": "auto",  # auto | real | synthetic
                "data_dir": placeholder(str),  # prepared datasets; unset: TFDS' own
                "manual_dir": placeholder(str),  # archives; unset: $FLAXRNN_MANUAL_DIR, TFDS' own
                "path": placeholder(str),  # of task text: .csv, .tsv, .jsonl, folder or TFDS name
                "text_field": "text",  # of task text: the column of the texts
                "label_field": "label",  # of task text: the column of their classes
                "test_fraction": 0.1,  # of each class, where your own texts have no test split
                "tokenizer": "words",  # words | characters | subword
                "num_words": 1_000,  # vocabulary size at most, special ids included
                "maxlen": 100,  # tokens; of a longer text the last ones stay
                "padding": "post",  # post: masked | pre: read as if it were text, as in Keras
                "max_padding": 0.1,  # share of padding that length buckets allow; 1: no buckets
                "device_memory": 1024.0,  # MiB of each device for texts; more is streamed
                "validation": "train",  # train: the last part of it | test: the chapter's habit
                "validation_fraction": 0.1,  # of the training texts, where validation = train
            },
            "model": {
                "target": "label",  # label: of a text | tags: of its tokens | next: token
                "embedding_size": 100,
                "dropout": 0.0,  # share of embedding entries dropped in training
                "conv_filters": 0,  # 0: no convolution, no max pooling after it
                "conv_width": 5,  # tokens
                "conv_pool": 4,  # convolution outputs a recurrent step
                "cell": "lstm",  # simple | lstm | gru | module:Class, of your own
                "hidden_size": 100,  # of each direction
                "layers": 1,
                "bidirectional": False,
                "pooling": "last",  # last | max | mean | attention; of target label
                "recurrence": "auto",  # scan: the reference | fused: faster, equal | auto: fused
                "recompute": 0,  # steps a segment computed twice to save memory; 0: none, not scan
            },
            "train": {
                "batch_size": 20,  # texts
                "eval_batch_size": 250,  # texts
                "learning_rate": 1e-3,  # of Adam, the highest
                "schedule": "constant",  # one_cycle: up in a tenth of all epochs, then down to 0
                "epochs": 200,  # at most
                "patience": 5,  # epochs without a lower validation loss before training stops
                "averaging": True,  # evaluate and keep the average of the weights of late steps
                "nonfinite": "stop",  # a step without a finite loss: stop | skip it and count
                "checkpoint_seconds": 60.0,  # between checkpoints within an epoch
                "checkpoint_steps": 0,  # also after so many training steps; 0: by seconds alone
                "restore_best": True,  # end with the weights of the lowest validation loss
            },
        }
    )
