"""The TensorBoard events, read back from their files."""

import pytest
from helpers import events, finished_run
from tensorboardX.proto.event_pb2 import SessionLog

from flaxrnn.reporting.tensorboard import EventLog


def test_tags_and_values_of_every_epoch(tmp_path):
    _, history, _ = finished_run(epochs=2)
    log = EventLog(tmp_path, first_epoch=1)
    for row in history:
        log.epoch(row)
    log.close()
    scalars = {
        (event.step, value.tag): value.simple_value
        for event in events(tmp_path)
        for value in event.summary.value
    }
    assert set(scalars) == {
        (epoch, tag)
        for epoch in (1, 2)
        for tag in (
            "train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/macro_f1",
            "skipped/steps", "train/examples_per_second", "seconds",
        )
    }  # fmt: skip
    assert scalars[2, "val/loss"] == pytest.approx(history[1]["val_loss"])


def test_resuming_drops_later_epochs(tmp_path):
    """TensorBoard drops events from the step of a START on, in the files before it."""
    EventLog(tmp_path, first_epoch=3).close()
    first, second = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    assert (second.session_log.status, second.step) == (SessionLog.START, 3)


def test_events_are_on_disk_before_the_log_is_closed(tmp_path):
    """A run that is killed keeps them."""
    _, history, _ = finished_run(epochs=1)
    log = EventLog(tmp_path, first_epoch=1)
    log.epoch(history[0])
    assert events(tmp_path)[-1].step == 1
    log.close()


def test_failures_are_raised_where_they_happen(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        EventLog(tmp_path / "file", first_epoch=1)
