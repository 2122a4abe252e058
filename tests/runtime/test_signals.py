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
        assert listener.received == 0
        listener.deferred = True
        os.kill(os.getpid(), number)
        assert listener.received == number
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
