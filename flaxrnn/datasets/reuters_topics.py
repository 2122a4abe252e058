"""Reuters newswire topics: the 46-class corpus of Keras, rebuilt from Reuters-21578."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from flaxrnn.datasets import archive

ARCHIVE = archive.Archive(
    "reuters21578.tar.gz",
    "https://archive.ics.uci.edu/ml/machine-learning-databases/reuters21578-mld/reuters21578.tar.gz",
    # As scikit-learn's out-of-core example records it, and Hugging Face's dataset for another host.
    "3bae43c9b14e387f76a61b6d82bf98a4fb5d3ef99ef7e7075ff2ccbcf59f9d30",
)
LABELS = (
    "cocoa grain veg-oil earn acq wheat copper housing money-supply coffee sugar trade reserves "
    "ship cotton carcass crude nat-gas cpi money-fx interest gnp meal-feed alum oilseed gold tin "
    "strategic-metal livestock retail ipi iron-steel rubber heat jobs lei bop zinc orange pet-chem "
    "dlr gas silver wpi hog lead"
).split()

_FILES = 22
_MIN_STORIES = 15  # topics with fewer are left out
_SHUFFLE_SEED = 113  # of Keras's split
_TEST_FRACTION = 0.2


class Story(NamedTuple):
    """A newswire story that has a topic."""

    topic: str
    body: str


def scan(sgml: str, own_body: bool) -> list[Story]:
    """Finds the stories of one SGML file that have a topic; the first topic is the label.

    A story without a body takes the following story's, as in Keras's corpus, which was scanned that
    way in 2015; with `own_body` it is left out.
    """
    stories = []
    position = 0
    while (position := sgml.find("<TOPICS>", position)) >= 0:
        position += len("<TOPICS>")
        topic = sgml[position : sgml.find("</", position)].removeprefix("<D>")
        if not topic:
            continue
        end = sgml.find("</REUTERS>", position) if own_body else len(sgml)
        begin = sgml.find("<BODY>", position, end)
        if begin >= 0:
            stories.append(Story(topic, sgml[begin + len("<BODY>") : sgml.find("</", begin)]))
        elif not own_body:
            stories.append(Story(topic, ""))  # no story with a body follows
    return stories


def _without_duplicates(stories: list[Story]) -> list[Story]:
    """Keeps the first story of each body, and none of a body that occurs under several topics."""
    topics: dict[str, set[str]] = {}
    for story in stories:
        topics.setdefault(" ".join(story.body.split()), set()).add(story.topic)
    kept = []
    for story in stories:
        if len(topics.pop(" ".join(story.body.split()), ())) == 1:
            kept.append(story)
    return kept


class ReutersTopics(tfds.core.GeneratorBasedBuilder):
    """Reuters-21578 as a 46-topic classification corpus, in the order of Keras's split.

    Features: `text`, `label`, and `position`, the story's place in the archive.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
        tfds.core.BuilderConfig(
            name="keras",
            description="The 11,228 stories of `keras.datasets.reuters`, its labels and split.",
        ),
        tfds.core.BuilderConfig(
            name="clean",
            description="Each story with its own body, no body twice or under several topics.",
        ),
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"Put {ARCHIVE.name} there, from {ARCHIVE.url}"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.builder_config.description,
            features=tfds.features.FeaturesDict(
                {
                    "text": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=LABELS),
                    "position": np.int64,
                }
            ),
            supervised_keys=("text", "label"),
            homepage="https://www.daviddlewis.com/resources/testcollections/reuters21578/",
            disable_shuffling=True,  # the order within the splits is part of the corpus
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        path = dl_manager.manual_dir / ARCHIVE.name
        clean = self.builder_config.name == "clean"
        files = archive.read_members(path, re.compile(r"reut2-\d{3}\.sgm"))
        archive.check_counts(
            path, list(files), {"files reut2-*.sgm": _FILES}, lambda _: "files reut2-*.sgm"
        )
        stories = [
            story
            for name in sorted(files)
            for story in scan(files[name].decode("latin-1"), own_body=clean)
        ]
        counts = Counter(story.topic for story in stories)
        stories = [story for story in stories if counts[story.topic] >= _MIN_STORIES]
        if clean:
            stories = _without_duplicates([s for s in stories if s.topic in LABELS])
        order = np.arange(len(stories))
        np.random.RandomState(_SHUFFLE_SEED).shuffle(order)
        cut = int(len(stories) * (1 - _TEST_FRACTION))
        return {
            "train": self._generate_examples(stories, order[:cut]),
            "test": self._generate_examples(stories, order[cut:]),
        }

    def _generate_examples(
        self, stories: list[Story], order: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, position in enumerate(order):
            story = stories[position]
            yield key, {"text": story.body, "label": story.topic, "position": position}
