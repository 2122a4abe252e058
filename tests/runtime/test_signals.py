import os
import signal
import subprocess
import sys
import threading

import pytest
from helpers import ROOT

from flaxrnn.runtime import signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_raises_unless_it_is_deferred(number, capsys):
    previous = signal.getsignal(number)
    with signals.Listener() as listener:
        with pytest.raises(signals.Stopped, match="stopped before there was anything") as stopped:
            os.kill(os.getpid(), number)
        assert not isinstance(stopped.value, Exception)
        assert stopped.value.exit_code == 128 + number
        listener.received = 0
        listener.deferred = True
        os.kill(os.getpid(), number)
        assert listener.received == number
        with pytest.raises(signals.Stopped):
            listener.check()
        listener.received = 0  # the run saved
    assert signal.getsignal(number) is previous
    assert capsys.readouterr().err.startswith(f"\n{number.name}: saving; ")


def test_a_second_signal_exits_at_once():
    code = (
        "import os, signal; from flaxrnn.runtime import signals\n"
        "with signals.Listener() as listener:\n"
        "    listener.deferred = True\n"
        "    os.kill(os.getpid(), signal.SIGINT); print(listener.received, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM); print('not reached')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, f"{int(signal.SIGINT)}\n")
    assert done.stderr == "\nSIGINT: saving; a second signal exits at once\n"


@pytest.mark.parametrize("swallowed", ["ignored", "wrapped"])
def test_a_signal_that_a_library_swallows_still_stops_the_run(swallowed):
    """As JAX does in its callback for the garbage collector, and where it calls Python."""
    stopped = pytest.raises(signals.Stopped, match="SIGTERM: stopped")
    with stopped, signals.Listener() as listener:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except signals.Stopped:
            if swallowed == "wrapped":
                raise RuntimeError("INTERNAL: a callback failed") from None
        assert listener.received == signal.SIGTERM


def test_a_signal_that_came_too_late_is_not_lost():
    listener = signals.Listener()
    listener.deferred = True
    with pytest.raises(signals.Stopped, match="SIGTERM"), listener:
        os.kill(os.getpid(), signal.SIGTERM)


IN_A_COMMAND = """
import gc, os, signal, sys
from flaxrnn.runtime import signals
signals.end_process_when_asked()
def kill(*_):  # where an exception would be ignored
    os.kill(os.getpid(), signal.SIGTERM)
gc.callbacks.append(kill)
print("printed before")
if sys.argv[1] == "listening":
    with signals.Listener() as listener:
        listener.undo = lambda: print("undone")
        gc.collect()
else:
    gc.collect()
print("not reached")
"""


@pytest.mark.parametrize(
    ("place", "out", "err"),
    [
        ("outside", "printed before\n", "SIGTERM: stopped"),
        ("listening", "printed before\nundone\n", f"SIGTERM: {signals.NOTHING}"),
    ],
)
def test_a_command_with_nothing_to_save_ends_wherever_it_is(place, out, err):
    done = subprocess.run(
        [sys.executable, "-c", IN_A_COMMAND, place], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (143, out, f"\n{err}\n")


IGNORED = """
import os, signal, sys
from flaxrnn.runtime import signals, terminal
signals.end_process_when_asked()
with signals.Listener() as listener:
    os.kill(os.getpid(), signal.SIGINT)
    assert not listener.received
terminal.run(lambda: os.kill(os.getpid(), signal.SIGINT))
os.kill(os.getpid(), signal.SIGINT)
print("went on")
"""


def test_an_ignored_signal_stays_ignored():
    """As in the background of a script: `flaxrnn train … &`."""
    command = f"trap '' INT; exec {sys.executable} -c '{IGNORED}'"
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_the_handler_is_set_before_anything_large_is_imported():
    code = (
        "import sys; from flaxrnn import cli; from flaxrnn.runtime import signals\n"
        "def stop(): print({'absl', 'jax', 'numpy', 'ml_collections'} & set(sys.modules)); 1 / 0\n"
        "signals.end_process_when_asked = stop; cli.train(['train.py'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "set()\n"
    assert "ZeroDivisionError" in done.stderr


def test_outside_the_main_thread_no_handler_is_installed():
    handlers = []

    def listen():
        with signals.Listener():
            handlers.append(signal.getsignal(signal.SIGTERM))

    previous = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert handlers == [previous]
