"""The end of a run, once its result is on disk: a baseline, and why the network was mistaken."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from flaxrnn.config import modules
from flaxrnn.data.corpora import Corpus
from flaxrnn.data.vocabulary import UNKNOWN_WORD
from flaxrnn.inference import attribution, predictions, saved
from flaxrnn.reporting import page
from flaxrnn.run import Run
from flaxrnn.runtime import distributed, plugins, signals, terminal
from flaxrnn.training import baseline


def finish(
    run: Run, outcome: dict[str, Any], details: page.Details, known: dict[str, Any] | None
) -> None:
    """Adds what takes longer than writing a result, which a signal or a failure then costs nothing.

    Args:
        run: The run, whose result and page are written.
        outcome: The result.
        details: Of the page.
        known: The baseline of another run on the same texts, if there is one.
    """
    explained = _explain_mistakes(run, outcome, details)
    _add_baseline(run, outcome, known)
    if "baseline" in outcome:
        run.reporter.baseline(outcome, run.progress.history, explained)
    elif explained is not details:
        run.reporter.write_page(outcome, run.progress.history, explained)


def complete(run: Run, outcome: dict[str, Any]) -> str:
    """What is said of a run that a signal stops after its result was written."""
    wanted = run.texts.corpus is not None and run.config.train.baseline
    without = ", without a baseline" if wanted and "baseline" not in outcome else ""
    return f"{terminal.escaped(str(run.workdir))} is complete{without}"


def _add_baseline(run: Run, outcome: dict[str, Any], known: dict[str, Any] | None) -> None:
    """Adds what a linear model reaches to the result."""
    corpus = run.texts.corpus
    if corpus is None or not run.config.train.baseline or not _may_go_on(run):
        return
    with _interruptible(run, outcome, "baseline    none"):
        outcome["baseline"] = known or baseline.evaluate(corpus, run.texts.training_data.rows)


def _explain_mistakes(run: Run, outcome: dict[str, Any], details: page.Details) -> page.Details:
    """The details with the words that decided in each mistake."""
    corpus, mistakes = run.texts.corpus, details.mistakes
    if corpus is None or not run.config.train.explain or not mistakes or not _may_go_on(run):
        return details
    if details.thresholds is not None:  # several labels decide, each for reasons of its own
        return details
    with _interruptible(run, outcome, "mistakes    not explained"):
        words = _deciding_words(run, corpus, mistakes)
        explained = [
            dataclasses.replace(mistake, words=of_mistake)
            for mistake, of_mistake in zip(mistakes, words, strict=True)
        ]
        return dataclasses.replace(details, mistakes=explained)
    return details


def _may_go_on(run: Run) -> bool:
    return distributed.is_primary() and not run.listener.received


@contextlib.contextmanager
def _interruptible(run: Run, outcome: dict[str, Any], without: str) -> Iterator[None]:
    """A block that a signal ends at once, since the result is on disk; a failure costs a line."""
    listener = run.listener
    listener.at_once, listener.deferred = complete(run, outcome), False
    try:
        yield
    except Exception as error:  # of too many classes for the memory, say
        print(f"  {without}: {terminal.escaped(plugins.reason(error))}", flush=True)
    except signals.Stopped:
        pass
    finally:
        listener.deferred = True


def _deciding_words(
    run: Run, corpus: Corpus, mistakes: list[page.Mistake]
) -> list[tuple[str, ...]]:
    model = saved.load(run.workdir, modules(run.config))
    rows = np.array([mistake.row for mistake in mistakes])
    texts = run.texts.training_data.texts.take(rows)
    of_test = corpus.held_out.take(rows - len(corpus.train))
    whole = [corpus.vocabulary.decode(ids, UNKNOWN_WORD) for ids in of_test.texts()]
    labels = np.array([mistake.predicted for mistake in mistakes], np.int32)
    found = attribution.of_read_texts(model, texts, labels, whole)
    words = []
    for ids, weights in zip(texts.texts(), found, strict=True):
        text, spans = model.vocabulary.spell(ids)
        places = predictions.merged(text, spans, weights)
        words.append(predictions.deciding((text[a:b], weight) for a, b, weight in places))
    return words
