"""The reports of a whole run: their files, their failures, and a new metric in all of them."""

import errno
import json
import os
import struct

import pytest
from helpers import events, finished_run
from tensorboardX.event_file_writer import EventsWriter

from flaxrnn.reporting import page, plots, report
from flaxrnn.runtime import files, terminal
from flaxrnn.training import metrics


def run_reports(folder, result, history, details):
    """Reports a run epoch by epoch, and its end."""
    reporter = report.Report(folder, [])
    for done in range(1, len(history) + 1):
        reporter.epoch(history[:done], epochs=200, patience=5)
    reporter.result(result, history)
    reporter.finish(result, history, details)
    reporter.close()


def test_files_of_a_run(tmp_path):
    result, history, details = finished_run()
    run_reports(tmp_path, result, history, details)
    names = {path.name for path in tmp_path.iterdir() if not path.name.startswith("events.")}
    assert names == {"metrics.jsonl", "result.json", "report.html", "curves.png"}
    assert json.loads((tmp_path / "result.json").read_text()) == result
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    assert {event.step for event in events(tmp_path)} == {0, 1, *range(1, 8)}


def test_resumed_run_continues_after_its_history(tmp_path):
    _, history, _ = finished_run()
    (tmp_path / "metrics.jsonl").write_text("of a later epoch, which is trained again\n")
    report.Report(tmp_path, history[:2]).close()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert [event.step for event in events(tmp_path)] == [0, 3]


def test_new_metric_shows_up_in_all_reports(tmp_path, monkeypatch, capsys):
    metric = metrics.Metric(
        "top3", "top-3 accuracy", lambda *_: 0, detail="of three guesses", format=".3f"
    )
    monkeypatch.setitem(metrics.METRICS, "top3", metric)
    result, history, details = finished_run(epochs=2, val_top3=0.8881, test_top3=0.8772)
    for row in history:
        row.update(train_top3=0.9991 - row["epoch"] / 10, val_top3=0.8881)
    run_reports(tmp_path, result, history, details)

    out = capsys.readouterr().out
    assert "accuracy 0.5000 top-3 accuracy 0.899 | validation" in out
    assert "validation  loss 1.3000  accuracy 0.6500  top-3 accuracy 0.888\n" in out
    assert "macro-F1 0.2801  top-3 accuracy 0.877\n" in out
    tags = {value.tag for event in events(tmp_path) for value in event.summary.value}
    assert {"train/top3", "val/top3"} < tags
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<dt>test top-3 accuracy</dt><dd><b>0.877</b> of three guesses</dd>" in page
    assert 'aria-label="top-3 accuracy (of three guesses) by epoch' in page
    assert "epoch 1, training: top-3 accuracy 0.899" in page
    width, _ = struct.unpack(">II", (tmp_path / "curves.png").read_bytes()[16:24])
    assert width == 3 * 550


def test_runs_older_than_a_metric_are_still_reported(tmp_path, monkeypatch, capsys):
    metric = metrics.Metric("top3", "top-3 accuracy", lambda *_: 0)
    monkeypatch.setitem(metrics.METRICS, "top3", metric)
    run_reports(tmp_path, *finished_run(epochs=2))
    assert "macro-F1 0.2801  top-3 accuracy nan\n" in capsys.readouterr().out
    assert (tmp_path / "result.json").exists()


@pytest.mark.parametrize(("owner", "name"), [(EventsWriter, "flush"), (files, "write_atomically")])
def test_failure_to_write_costs_a_warning(owner, name, tmp_path, monkeypatch, capsys):
    _, history, _ = finished_run(epochs=30)
    reporter = report.Report(tmp_path, [])

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        for done in range(1, 30):
            reporter.epoch(history[:done], epochs=200, patience=5)
    out, err = capsys.readouterr()
    assert out.count("epoch ") == 29
    assert err == f"warning: {tmp_path} cannot be written (No space left on device)\n" * 29
    reporter.epoch(history, epochs=200, patience=5)
    reporter.close()
    assert events(tmp_path)[-1].step == 30
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 30


def test_run_without_an_event_file_is_trained(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    reporter = report.Report(tmp_path / "file", [])
    reporter.epoch(finished_run(epochs=1)[1], epochs=200, patience=5)
    reporter.close()
    assert capsys.readouterr().err.count("cannot be written (Not a directory)") == 2


@pytest.mark.parametrize("name", ["curves.png", "report.html"])
@pytest.mark.parametrize(
    "error", [MemoryError("of 3 GiB"), ValueError("ParseFatalException: Expected end of text")]
)
def test_the_result_is_safe_before_what_shows_it(name, error, tmp_path, monkeypatch, capsys):
    result, history, details = finished_run(epochs=2)

    def fail(*_):
        assert json.loads((tmp_path / "result.json").read_text()) == result
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
        raise error

    owner, function = {"curves.png": (plots, "save_curves"), "report.html": (page, "render")}[name]
    monkeypatch.setattr(owner, function, fail)
    run_reports(tmp_path, result, history, details)
    out, err = capsys.readouterr()
    reason = f"{type(error).__name__}: {error}"
    assert err == f"warning: {tmp_path / name} cannot be written ({reason})\n"
    assert "accuracy 0.7386" in out
    assert (tmp_path / ({"curves.png", "report.html"} - {name}).pop()).exists()


@pytest.mark.parametrize("dataset", ["$\\nope$.csv", "$", "리뷰.csv"])
def test_any_name_of_a_file_can_be_shown(dataset, tmp_path, capsys):
    """The command, too, names files; they need not be UTF-8."""
    result, history, details = finished_run(epochs=2, dataset=dataset, command="train.py \udcff")
    folder = tmp_path / "\udcff"
    folder.mkdir()
    run_reports(folder, result, history, details)
    out, err = capsys.readouterr()
    assert (err, terminal.escaped(str(folder / "report.html")) in out) == ("", True)
    assert json.loads((folder / "result.json").read_text()) == result
    assert (folder / "curves.png").exists()
    assert dataset in (folder / "report.html").read_text()
