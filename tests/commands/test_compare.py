import json
import os
import pty
import re
import subprocess
import sys

import pytest
from helpers import ROOT

from configs import imdb, reuters
from flaxrnn import compare
from flaxrnn.errors import ConfigError, WorkdirError
from flaxrnn.reporting import plots
from flaxrnn.runtime import terminal
from flaxrnn.training import metrics


def write(folder, accuracy, module=reuters, *, validated=None, dataset="reuters/1.0.0", **changes):
    """Writes the files of a finished run."""
    config = module.get_config()
    for name, value in changes.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    result = {
        "dataset": dataset,
        "parameters": 185_046,
        "epochs": 2,
        "val_accuracy": accuracy if validated is None else validated,
        "val_loss": 1.5,
        "test_accuracy": accuracy,
        "test_macro_f1": 0.25,
        "seconds": {"startup": 1.0, "compile": 2.0, "total": 10.0},
    }
    (folder / "result.json").write_text(json.dumps(result))
    epochs = [
        {"seconds": seconds, "val_accuracy": accuracy, "val_loss": 1 - accuracy}
        for seconds, accuracy in ((3.0, 0.5), (4.0, 0.6))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in epochs))
    return folder


def update_result(workdir, **changes):
    path = workdir / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shown(capsys, *arguments):
    compare.main(list(map(str, arguments)))
    out, err = capsys.readouterr()
    return [line.split("  ") for line in out.splitlines()], err


def cells(line):
    return [cell.strip() for cell in line if cell.strip()]


def test_runs_that_differ_by_seed_alone_share_a_row(tmp_path, capsys):
    seeds = [write(tmp_path / f"s{i}", a, seed=i) for i, a in enumerate((0.70, 0.72, 0.77))]
    update_result(seeds[0], epochs=4)
    gru = write(tmp_path / "gru", 0.72, validated=0.75, model__cell="gru")
    lines, err = shown(capsys, *seeds, gru)
    assert err == ""
    header, first, second = map(cells, lines)
    assert header == [
        "run", "n", "val accuracy", "test accuracy", "val loss", "macro-F1", "seconds",
        "parameters", "epochs",
        "model.cell",
    ]  # fmt: skip
    assert first == [
        str(gru), "1", "0.7500", "0.7200", "1.5000", "0.2500", "10.0", "185,046", "2", "gru"
    ]  # fmt: skip
    assert second[:4] == [f"{seeds[0]} (+2)", "3", "0.7300 ± 0.0361", "0.7300 ± 0.0361"]
    assert second[4:] == ["1.5000", "0.2500", "10.0", "185,046", "2.7 ± 1.2", "lstm"]
    assert len({len("  ".join(line)) for line in lines}) == 1


def test_monitored_metric_is_shown_for_validation(tmp_path, capsys):
    run = write(tmp_path / "a", 0.7, train__monitor="accuracy")
    update_result(run, val_accuracy=0.65)
    lines, _ = shown(capsys, run)
    assert cells(lines[0])[2:5] == ["val accuracy", "test accuracy", "macro-F1"]
    assert cells(lines[1])[2:5] == ["0.6500", "0.7000", "0.2500"]
    lines, _ = shown(capsys, run, write(tmp_path / "b", 0.8))
    assert cells(lines[0])[2:6] == ["val accuracy", "test accuracy", "val loss", "macro-F1"]


def test_workdir_of_several_seeds_is_one_entry(tmp_path, capsys):
    many = tmp_path / "many"
    many.mkdir()
    runs = [write(many / f"seed-{i}", 0.70 + i / 50, seed=i) for i in range(2)]
    lines, err = shown(capsys, many, *runs)
    assert len(lines) == 2  # its runs, but not yet their ensemble
    assert err == f"left out: {many} has no figures of an ensemble\n"
    figures = {"test_accuracy": 0.75, "test_macro_f1": 0.5}
    record = {"members": ["seed-0", "seed-1"], "ensemble": figures}
    (many / "seeds.json").write_text(json.dumps(record))
    shown(capsys, many, "--plot", tmp_path / "plot.png", "--page", tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text("utf-8")
    assert "<h1>2 runs</h1>" in page
    assert page.count("many (ensemble), epoch 2: accuracy 0.6000</title>") == 4  # two panels
    lines, err = shown(capsys, many, *many.iterdir())
    assert err == ""
    header, ensemble, single = map(cells, lines)
    assert header[-1] == "members"
    assert ensemble == [
        f"{many} (ensemble)", "1", "-", "0.7500", "-", "0.5000", "20.0", "370,092", "-", "2",
    ]  # fmt: skip
    assert single[1:3] == ["2", "0.7100 ± 0.0141"]
    assert single[-1] == "-"
    (runs[1] / "result.json").unlink()
    _, err = shown(capsys, many, runs[0])
    assert "many is unfinished, seed-1 of 2 runs: start its command again" in err


def test_mean_of_epochs_has_one_decimal(tmp_path, capsys):
    runs = [write(tmp_path / f"s{i}", 0.7, seed=i) for i in range(2)]
    for workdir, epochs in zip(runs, (19, 20), strict=True):
        update_result(workdir, epochs=epochs)
    lines, _ = shown(capsys, *runs)
    assert cells(lines[1])[-1] == "19.5 ± 0.7"


def test_new_metric_gets_a_column_and_older_runs_are_still_compared(tmp_path, capsys, monkeypatch):
    new, old = write(tmp_path / "new", 0.7), write(tmp_path / "old", 0.8, seed=1)
    update_result(new, test_top3=0.9876)
    update_result(old, val_loss=float("nan"))
    metric = metrics.Metric("top3", "top-3 accuracy", lambda *_: 0, format=".3f")
    monkeypatch.setitem(metrics.METRICS, "top3", metric)
    lines, err = shown(capsys, new, old)
    assert err == ""
    assert cells(lines[0])[5:7] == ["macro-F1", "test top-3 accuracy"]
    assert cells(lines[1])[3:7] == ["0.7500 ± 0.0707", "1.5000", "0.2500", "0.988"]
    lines, _ = shown(capsys, old)
    assert cells(lines[1])[3:7] == ["0.8000", "-", "0.2500", "-"]


def test_neither_a_repeated_run_nor_another_corpus_counts_as_a_seed(tmp_path, capsys):
    runs = [write(tmp_path / name, 0.7) for name in ("a", "b")]
    runs += [write(tmp_path / "c", 0.9, seed=1, dataset="synthetic_reuters/1.0.0")]
    lines, _ = shown(capsys, *runs)
    assert [cells(line)[1] for line in lines[1:]] == ["1", "1", "1"]
    assert [cells(line)[-1] for line in lines] == [
        "dataset", "synthetic_reuters/1.0.0", "reuters/1.0.0", "reuters/1.0.0"
    ]  # fmt: skip


def test_folders_without_a_finished_run_are_named_in_one_line(tmp_path, capsys):
    good = write(tmp_path / "good", 0.7)
    unfinished, broken, old = (write(tmp_path / name, 0.7) for name in ("un", "broken", "old"))
    (unfinished / "result.json").unlink()
    (broken / "result.json").write_text('{"dataset"')
    (old / "result.json").write_text("{}")
    (good / "metrics.jsonl").unlink()
    left_out = [unfinished, tmp_path, tmp_path / "nope", broken, old]
    lines, err = shown(capsys, good, *left_out)
    assert len(lines) == 2
    assert err.count("\n") == 1
    assert err.startswith(
        f"left out: {unfinished} is unfinished; {tmp_path} is not a run directory; "
    )
    assert all(str(folder) in err for folder in left_out)
    with pytest.raises(
        WorkdirError, match=r"no finished run: .* is unfinished; .* is not a run directory"
    ):
        compare.main([str(unfinished), str(tmp_path)])


def test_plot(tmp_path, capsys):
    runs = [write(tmp_path / f"{i}", 0.7 + i / 100, seed=i) for i in range(2)]
    runs += [write(tmp_path / ("길" * 60), 0.8, imdb)]  # a script that not every font has
    (curve,) = compare.read(runs[0]).curves
    assert (curve.over("seconds"), curve.over("epoch")) == ([6.0, 10.0], [1, 2])
    assert curve.values["accuracy"] == [0.5, 0.6]
    path = tmp_path / "plot.png"
    shown(capsys, *runs, "--plot", path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"--plot: a\.jpg must end in \.png"):
        compare.main([*map(str, runs), "--plot", "a.jpg"])
    with pytest.raises(WorkdirError, match=r"--plot: /proc/a\.png cannot be written"):
        compare.main([*map(str, runs), "--plot", "/proc/a.png"])


def test_the_best_on_validation_comes_first(tmp_path, capsys):
    """Whatever it reaches on test, which would look better than it is, if it had been chosen."""
    runs = [
        write(tmp_path / name, tested, validated=validated, train__epochs=i)
        for i, (name, tested, validated) in enumerate(
            (("lucky", 0.9, 0.6), ("old", 0.95, None), ("best", 0.7, 0.8), ("bad", 0.8, 0.5)), 1
        )
    ]
    update_result(runs[1], val_accuracy=None)  # nothing is known, so it comes last
    lines, _ = shown(capsys, *runs)
    assert [cells(line)[0] for line in lines[1:]] == [str(runs[i]) for i in (2, 0, 3, 1)]


def test_plot_by_epoch(tmp_path, capsys, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure.axes[0]))
    seeds = [write(tmp_path / f"{i}", 0.7 + i / 100, seed=i) for i in range(2)]
    shown(capsys, *seeds, "--plot", "a.png", "--by", "epoch")
    (axes,) = drawn
    assert axes.get_xlabel() == "epoch"
    first, second, ends = (line.get_xydata().tolist() for line in axes.lines)
    assert first == second == [[1, 0.5], [2, 0.6]]
    assert ends == [[2, 0.7], [2, 0.71]]
    with pytest.raises(ConfigError, match="--by: invalid choice: 'day'"):
        compare.main([str(seeds[0]), "--by", "day"])


def test_a_page_lays_the_curves_of_all_runs_over_each_other(tmp_path, capsys):
    runs = [write(tmp_path / f"s{i}", 0.7, seed=i) for i in range(2)]
    runs += [write(tmp_path / "<b>$x$", 0.8, imdb)]
    (runs[1] / "metrics.jsonl").write_text('{"seconds": 3.0, "val_accuracy": null}\n')
    shown(capsys, *runs, "--page", tmp_path / "c.html")
    page = (tmp_path / "c.html").read_text("utf-8")
    assert page.count("<svg") == 3  # loss and accuracy by epoch, accuracy by seconds
    assert page.count("s0 (+1), epoch 2: accuracy 0.6000</title>") == 2
    assert page.count("&lt;b&gt;$x$, epoch 1: loss 0.5000</title>") == 1
    assert "<b>$x$" not in page
    swatches = re.findall('<i style="background: (#......)"></i><bdi>(.*?)</bdi>', page)
    assert [name for _, name in swatches] == [f"{tmp_path}/&lt;b&gt;$x$", f"{runs[0]} (+1)"]
    for colour, _ in swatches:
        assert page.count(f"stroke: {colour}") >= 3
    with pytest.raises(WorkdirError, match=r"--page: /proc/a\.html cannot be written"):
        compare.main([*map(str, runs), "--page", "/proc/a.html"])


def test_command(tmp_path):
    command = [sys.executable, "-m", "flaxrnn.compare"]
    done = subprocess.run([*command, "nope"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no finished run: nope is not a run directory\n"
    # A table that is too wide for the terminal is transposed.
    runs = [write(tmp_path / "a", 0.7), write(tmp_path / "b", 0.8, imdb)]
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "100"}
    subprocess.run([*command, *runs], cwd=ROOT, stdout=theirs, env=env, check=True)
    os.close(theirs)
    lines = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert cells(lines[0].split("  ")) == ["run", str(runs[1]), str(runs[0])]
    assert cells(lines[3].split("  ")) == ["test accuracy", "0.8000", "0.7000"]


def test_columns_of_a_table_and_of_a_line():
    assert terminal.table([["a", "b"], ["很", "100"]]) == "a     b\n很  100"
    assert terminal.fit("a\n b\x1b", 5) == "a b"
    assert terminal.fit("很很很", 5) == "很很…"
    assert terminal.fit("x" * 1_000_000, 5) == "xxxx…"
    assert terminal.wrap("\x1b[1maa\x1b[0m bb cc", 7, 2) == ["  \x1b[1maa\x1b[0m bb", "  cc"]
