"""Starts Python commands without paying for the imports of the libraries each time.

A server imports the libraries and most of flaxrnn once and forks itself for each command; modules
of the working folder are imported by every command anew. The client takes the arguments of
`python` (`-u`, then `-c CODE`, `-m MODULE` or a script), and stands for the command: it passes on
its streams, environment, folder and signals, and ends as the command does.

    python forkserver.py serve SOCKET       until its standard input ends
    python -IS forkserver.py SOCKET ARGUMENT …
"""

import contextlib
import json
import os
import select
import signal
import socket
import sys

LIBRARIES = (
    "absl.app jax jax.export jax.experimental.compilation_cache.compilation_cache"
    " jax.experimental.multihost_utils flax.linen flax.struct flax.traverse_util optax"
    " tensorflow_datasets ml_collections.config_flags safetensors.numpy filelock tensorboardX"
    " matplotlib.pyplot matplotlib.backends.backend_agg matplotlib.backends.backend_svg jinja2 tqdm"
    " jaxlib.mlir.dialects.mhlo jaxlib.mlir.dialects.builtin urllib.request"
    " scipy.optimize scipy.sparse scipy.special sklearn.feature_extraction.text sklearn.svm"
    " flaxrnn.loop flaxrnn.closing flaxrnn.inference.predictor flaxrnn.training.ngrams"
    " flaxrnn.datasets.custom flaxrnn.data.keras_api flaxrnn.inference.formats"
).split()
ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
NO_PLOTS = "TESTS_DRAW_NO_PLOTS"  # if a command has this variable, its run leaves out the plots
# What the libraries read once, when they are imported; of these a command may set the first only.
DEVICES = "JAX_NUM_CPU_DEVICES"
READ_ONCE = ("HOME", "JAX_", "TFDS_", "XLA_", "MPL", "PYTHONWARNINGS")


def settings(environment):
    """The variables that a command must have in common with the server."""
    found = environment.items()
    return {k: v for k, v in found if k.startswith(READ_ONCE) and k != DEVICES}


def exchange(path, arguments):
    """The client: has the server run a command, and ends as it does."""
    request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        socket.send_fds(server, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: server.send(bytes([number])))
        status = server.recv(16)
    code = os.waitstatus_to_exitcode(int(status or 1 << 8))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if code != -signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    os._exit(code)


def serve(path):
    """The server: returns only in a new process, with the request and the streams of a command."""
    sys.path[0] = ROOT  # in place of that of this file
    for name in LIBRARIES:
        __import__(name)
    gc.freeze()  # the collector would copy their memory in every command
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        while True:
            ready, _, _ = select.select([listener, 0], [], [])
            if 0 in ready:
                os._exit(0)
            connection, _ = listener.accept()
            if not os.fork():
                break
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
    message, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while not message.endswith(b"\n"):
        message += connection.recv(1 << 16)
    if command := os.fork():
        watch(connection, command)
    connection.close()
    return json.loads(message), streams


def watch(connection, command):
    """Passes signals on to a command, kills it when its client is gone, and sends its status."""
    for stream in range(3):  # are the command's alone
        os.close(stream)
    ended = os.pidfd_open(command)
    while True:
        ready, _, _ = select.select([connection, ended], [], [])
        if ended in ready:
            _, status = os.waitpid(command, 0)
            with contextlib.suppress(OSError):
                connection.send(str(status).encode())
            os._exit(0)
        number = connection.recv(1)
        os.kill(command, number[0] if number else signal.SIGKILL)


def become(request, streams):
    """Makes this process what `python` begins as, with the request's arguments."""
    if settings(request["environment"]) != settings(os.environ):
        sys.exit(f"forkserver: the libraries were imported with {settings(os.environ)}")
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if NO_PLOTS in os.environ:
        leave_out_plots()
    if DEVICES in os.environ:
        sys.modules["jax"].config.update(DEVICES.lower(), int(os.environ[DEVICES]))
    sys.orig_argv = [sys.executable, *request["arguments"]]
    for stream, given in enumerate(streams):
        os.dup2(given, stream)
        os.close(given)
    unbuffered = request["arguments"][0] == "-u"
    sys.stdin, sys.stdout, sys.stderr = (
        open(  # noqa: SIM115
            stream,
            mode,
            encoding=old.encoding,
            errors=old.errors,
            buffering=1 if os.isatty(stream) or stream == 2 else -1,
            closefd=False,
        )
        for stream, mode, old in zip(
            range(3), "rww", (sys.stdin, sys.stdout, sys.stderr), strict=True
        )
    )
    sys.stdout.reconfigure(write_through=unbuffered)
    return request["arguments"][unbuffered:]


def leave_out_plots(patch=setattr):
    """Leaves out the plots of a run, which take longer than its training."""
    from flaxrnn.reporting import plots

    patch(plots, "save_curves", lambda history, result, path: path.touch())
    for name in ("curves_svg", "reliability_svg", "coverage_svg"):
        patch(plots, name, lambda *_: "")


def run(kind, *arguments):
    """Runs a command as `__main__`."""
    folder = {"-c": "", "-m": os.getcwd()}.get(kind, os.path.dirname(os.path.realpath(kind)))
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [folder, *filter(None, added), *sys.path[1:]]  # in place of ROOT
    if kind == "-m":
        sys.argv = list(arguments)
        return runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if kind == "-c":
        code, *rest = arguments
        sys.argv, file = ["-c", *rest], "<string>"
    else:
        code, file = pathlib.Path(kind).read_text("utf-8"), kind
        sys.argv = [kind, *arguments]
        main.__file__ = kind
    return exec(compile(code, file, "exec"), main.__dict__)


def end(code):
    """Ends the process as Python does, but without the time that it takes to free all objects."""
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        # Not for the client, which starts in the time that these take.
        import atexit
        import gc
        import pathlib
        import runpy
        import threading
        import types

        command = become(*serve(sys.argv[2]))
        try:
            run(*command)
        except SystemExit as ended:
            end(ended.code)
        end(0)
    else:
        exchange(*sys.argv[1:2], sys.argv[2:])
