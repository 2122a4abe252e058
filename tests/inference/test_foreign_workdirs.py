"""A workdir that somebody sends is data: nothing that it names is run unless the user allows it."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers import python, shrink

import flaxrnn
from configs import imdb
from flaxrnn import compare, export, generate, predict
from flaxrnn.config import parse
from flaxrnn.errors import ConfigError
from flaxrnn.runtime import plugins
from flaxrnn.training import workdir as workdir_lib

MODULE = """
import pathlib
pathlib.Path(__file__).with_suffix(".ran").touch()
from flaxrnn.nn.cells import LSTM
from flaxrnn.nn.heads import LabelHead
class Cell(LSTM): pass
class Head(LabelHead): pass
def optimizer(rate): raise SystemExit
"""


@pytest.fixture
def foreign(imdb_workdir, tmp_path, monkeypatch):
    """Makes a workdir that names a module, and returns it with the file that tells of its run."""
    name = f"sent_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    def make(**named):
        folder = shutil.copytree(imdb_workdir, tmp_path / "run")
        config = json.loads((folder / "config.json").read_text())
        for field, attribute in named.items():
            group, _, key = field.rpartition("__")
            (config[group] if group else config)[key] = f"{name}:{attribute}"
        (folder / "config.json").write_text(json.dumps(config))
        return folder, name, tmp_path / f"{name}.ran"

    yield make
    sys.modules.pop(name, None)


COMMANDS = {
    "predict": lambda folder: predict.main(["--workdir", str(folder), "good"]),
    "generate": lambda folder: generate.main(["--workdir", str(folder), "good"]),
    "export": lambda folder: export.main(
        ["--workdir", str(folder), "--out", str(folder.with_name("out"))]
    ),
    "load": flaxrnn.load,
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("field", "name"), [("model__cell", "Cell"), ("model__target", "Head")])
def test_no_command_runs_what_a_workdir_names(command, field, name, foreign):
    folder, module, ran = foreign(**{field: name})
    with pytest.raises(ConfigError) as refused:
        COMMANDS[command](folder)
    message = str(refused.value)
    assert message.startswith(f"{field.replace('__', '.')}: {module}:{name} is code")
    assert f"--allow-module {module}" in message
    assert (refused.value.exit_code, message.count("\n"), ran.exists()) == (2, 0, False)


def test_a_run_that_starts_from_it_does_not_run_what_it_names(foreign, tiny_corpus, no_plots):
    folder, module, ran = foreign(model__target="Head")
    config = shrink(imdb.get_config(), epochs=1)
    config.train.init_from = str(folder)
    flaxrnn.train(config, folder.with_name("new"))  # its layers are taken, its head is not
    shutil.rmtree(folder)
    folder, module, ran = foreign(model__cell="Cell")
    with pytest.raises(
        ConfigError, match=rf"model\.cell: must be {module}:Cell, not lstm: that of"
    ):
        flaxrnn.train(config, folder.with_name("other"))
    assert not ran.exists()


def test_on_the_command_line_it_is_one_line_and_exit_code_2(foreign):
    folder, module, ran = foreign(model__cell="Cell")
    command = [*python(), "-m", "flaxrnn.predict", "--workdir", str(folder), "good"]
    env = {**os.environ, "PYTHONPATH": f"{folder.parent}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        command, cwd=folder.parent, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, ran.exists()) == (2, "", False), done.stderr
    assert done.stderr.startswith("error: model.cell: ")
    assert f"--allow-module {module}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_names_that_prediction_does_not_need_are_not_imported(foreign):
    folder, module, ran = foreign(train__optimizer="optimizer", task="Builder")
    flaxrnn.load(folder).predict(["good"])
    for field in ("train.optimizer", "task"):  # nor by what comes later
        with pytest.raises(ConfigError, match=f"{field}: .*--allow-module {module}"):
            plugins.load(field, f"{module}:optimizer")
    assert not ran.exists()


def test_comparing_imports_nothing(foreign, capsys):
    folder, _, ran = foreign(model__cell="Cell", task="Builder")
    seconds = {"startup": 1, "compile": 1, "total": 2}
    result = {"dataset": "x", "seconds": seconds, "parameters": 1, "epochs": 1}
    (folder / "result.json").write_text(json.dumps(result))
    compare.main([str(folder)])
    assert (str(folder) in capsys.readouterr().out, ran.exists()) == (True, False)


def test_the_user_may_allow_a_module(foreign, capsys):
    folder, module, ran = foreign(model__target="Head")
    predict.main(["--workdir", str(folder), "--allow-module", module, "good"])
    assert (len(capsys.readouterr().out.splitlines()), ran.exists()) == (1, True)
    assert flaxrnn.load(folder, allow_modules=[module]).predict(["good"])


def test_another_module_is_not_allowed_with_it(foreign):
    folder, module, ran = foreign(model__cell="Cell")
    with pytest.raises(ConfigError):
        flaxrnn.load(folder, allow_modules=(module[:-1], f"{module}.Cell"))
    assert not ran.exists()


def test_a_resumed_run_imports_what_the_command_line_names_only(foreign):
    folder, _, ran = foreign(model__cell="Cell", train__optimizer="optimizer")
    config = parse(shrink(imdb.get_config())).to_dict()
    refused = pytest.raises(workdir_lib.WorkdirError, match=r"was created with model\.cell=")
    with refused, workdir_lib.open_workdir(folder, config):
        pytest.fail("opened")
    assert not ran.exists()


def test_the_compile_cache_of_a_workdir_is_not_used(foreign, tmp_path):
    """What is cached is machine code, which a workdir could bring along."""
    folder, _, _ = foreign()
    config = json.loads((folder / "config.json").read_text())
    config["compile_cache"] = str(folder / "programs")
    (folder / "config.json").write_text(json.dumps(config))
    flaxrnn.load(folder).predict(["good " * 7])
    assert not (folder / "programs").exists()
