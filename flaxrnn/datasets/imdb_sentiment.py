"""IMDB sentiment: the Large Movie Review Dataset (Maas et al., ACL 2011)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import tensorflow_datasets as tfds

from flaxrnn.datasets import archive

ARCHIVE = archive.Archive(
    "aclImdb_v1.tar.gz",
    "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",  # as TFDS records it
)
LABELS = ["neg", "pos"]

_REVIEW = re.compile(r"aclImdb/(?:(?:train|test)/(?:neg|pos)|train/unsup)/\d+_\d+\.txt")
_COUNTS = {
    "aclImdb/train/neg": 12_500,
    "aclImdb/train/pos": 12_500,
    "aclImdb/test/neg": 12_500,
    "aclImdb/test/pos": 12_500,
    "aclImdb/train/unsup": 50_000,
}


class ImdbSentiment(tfds.core.GeneratorBasedBuilder):
    """25,000 training and 25,000 test reviews, half of them positive, and 50,000 unlabelled ones.

    TFDS shuffles the order within a split: it is fixed, and independent of the labels.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put {ARCHIVE.name} there, from {ARCHIVE.url}"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=LABELS),
                }
            ),
            supervised_keys=("text", "label"),
            homepage="https://ai.stanford.edu/~amaas/data/sentiment/",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        path = dl_manager.manual_dir / ARCHIVE.name
        reviews = archive.read_members(path, _REVIEW)
        archive.check_counts(path, list(reviews), _COUNTS, lambda name: name.rpartition("/")[0])
        splits: dict[str, dict[str, bytes]] = {"train": {}, "test": {}, "unsupervised": {}}
        for name, text in reviews.items():
            _, split, label, _ = name.split("/")
            splits["unsupervised" if label == "unsup" else split][name] = text
        return {split: self._generate_examples(part) for split, part in splits.items()}

    def _generate_examples(self, reviews: dict[str, bytes]) -> Iterator[tuple[str, dict]]:
        for name, text in reviews.items():
            label = name.split("/")[2]
            yield name, {"text": text, "label": -1 if label == "unsup" else label}
