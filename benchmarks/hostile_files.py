"""Files that nobody should send: Keras models, archives, folders of texts, paths; for `attacks`."""

import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import flaxrnn
from flaxrnn import compare, from_keras
from flaxrnn.data import vectors
from flaxrnn.data.vocabulary import Vocabulary
from flaxrnn.datasets import archive, custom
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields

SECRET = "the content of another file"
SHAPES = {"dense/kernel": (3, 4), "dense/bias": (4,)}
Found = tuple[str, str, Callable[[Path], Any]]


def attacks() -> Iterator[Found]:
    """Kind, name and action of every attack with a file."""
    for name in KERAS:
        yield "Keras files", name, lambda scratch, name=name: _read_keras(scratch, name)
    for name in ARCHIVES:
        yield "archives", name, lambda scratch, name=name: _read_archive(scratch, name)
    for name in FOLDERS:
        for label in ("label", None):
            use = lambda scratch, name=name, label=label: _read_folder(scratch, name, label)  # noqa: E731
            yield "folders of texts", f"{name}, {label}", use
    for place in PLACES:
        for used, use in USES.items():
            yield "paths", f"{used} {place}", lambda s, p=place, use=use: _use(s, p, use)


def _refused(done: bool = True) -> None:
    if done:
        raise AssertionError("it was taken")


def _read_keras(scratch: Path, name: str) -> None:
    path = scratch / "model.weights.h5"
    secret = scratch / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.ones((3, 4), np.float32)
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/1"] = np.zeros(4, np.float32)
        KERAS[name](file, "layers/dense/vars/0", str(secret))
    if name.startswith("zip"):
        path = scratch / "model.keras"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr("config.json", "[" * 10**5 if "deep" in name else "{}")
            with zipped.open("model.weights.h5", "w") as member:
                for _ in range(80):
                    member.write(bytes(2**20))
    if name == "pipe":
        path = scratch / "pipe.keras"
        os.mkfifo(path)
    from_keras.read_weights(path, SHAPES, 4)
    _refused()


def _external(file: h5py.File, name: str, secret: str) -> None:
    file.create_dataset(name, (3, 4), "f4", external=[(secret, 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, name: str, secret: str) -> None:
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource(secret, "x", (3, 4))
    file.create_virtual_dataset(name, layout)


def _numbers(value: float) -> Callable[[h5py.File, str, str], None]:
    def write(file: h5py.File, name: str, _: str) -> None:
        file[name] = np.full((3, 4), value)

    return write


def _set(file: h5py.File, name: str, value: Any) -> None:
    file[name] = value


KERAS: dict[str, Callable[[h5py.File, str, str], Any]] = {
    "external link": lambda f, n, s: _set(f, n, h5py.ExternalLink(s, "/x")),
    "soft link": lambda f, n, s: _set(f, n, h5py.SoftLink("/elsewhere")),
    "external storage": _external,
    "virtual": _virtual,
    "compressed": lambda f, n, s: f.create_dataset(n, (3, 4), "f4", compression="gzip"),
    "large chunks": lambda f, n, s: f.create_dataset(
        n, (3, 4), "f4", maxshape=(None, None), chunks=(2**14, 2**14)
    ),
    "strings": lambda f, n, s: f.create_dataset(n, (3, 4), "S1000000"),
    "integers": lambda f, n, s: f.create_dataset(n, (3, 4), "i8"),
    "huge": lambda f, n, s: f.create_dataset(n, (2**20, 2**20), "f4", chunks=(2**10, 2**10)),
    "scalar": lambda f, n, s: _set(f, n, 1.0),
    "missing": lambda f, n, s: None,
    "group": lambda f, n, s: f.create_group(n),
    "cycle": lambda f, n, s: _set(f, "layers/dense/again", f["layers/dense"]),
    "nan": _numbers(np.nan),
    "infinite": _numbers(np.inf),
    "beyond float32": _numbers(1e300),
    "zip bomb": lambda f, n, s: None,
    "zip, deep": lambda f, n, s: None,
    "pipe": lambda f, n, s: None,
}


def _read_archive(scratch: Path, name: str) -> None:
    path = scratch / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("x.txt")
        for key, value in ARCHIVES[name].items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(b"0\n".ljust(512, b"\0")))
    if name == "cut":
        path.write_bytes(path.read_bytes()[:40])
    if name == "noise":
        path.write_bytes(b"\x1f\x8b" + bytes(range(256)))
    archive.read_members(path, re.compile(r".*x\.txt"))
    _refused()


_SPARSE = {"major": "1", "minor": "0", "name": "x.txt", "realsize": str(2**40)}
ARCHIVES: dict[str, dict[str, Any]] = {
    "link": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    "hard link": {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
    "device": {"type": tarfile.CHRTYPE},
    "pipe": {"type": tarfile.FIFOTYPE},
    "absolute": {"name": "/tmp/x.txt"},
    "above": {"name": "a/../../x.txt"},
    "sparse": {"size": 512, "pax_headers": {f"GNU.sparse.{k}": v for k, v in _SPARSE.items()}},
    "cut": {"size": 512},
    "noise": {},
}


def _read_folder(scratch: Path, name: str, label: str | None) -> None:
    (scratch / "secret.txt").write_text(SECRET)
    for holder in ("up", "down"):
        (scratch / "texts" / holder).mkdir(parents=True)
        (scratch / "texts" / holder / "a.txt").write_text("a text")
    FOLDERS[name](scratch / "texts" / "up" / "b.txt")
    found = custom.find_source(str(scratch / "texts"), Fields("text", label), Format()).read()
    _refused(len(found) > 2 or any(SECRET in example.text for example in found))


def _sparse_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**36)


FOLDERS: dict[str, Callable[[Path], Any]] = {
    "link out": lambda path: path.symlink_to("../../secret.txt"),
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "loop": lambda path: path.symlink_to(path),
    "huge": _sparse_file,
    "folder": Path.mkdir,
    "no text": lambda path: path.write_bytes(b"\xff\x00"),
    "folder out": lambda path: (path.parents[1] / "out").symlink_to("/etc"),
}

PLACES: dict[str, Callable[[Path], str]] = {
    "missing": lambda scratch: str(scratch / "missing"),
    "too long": lambda scratch: str(scratch / ("x" * 300)),
    "file": lambda scratch: str(scratch / "file"),
    "below a file": lambda scratch: str(scratch / "file" / "x"),
    "pipe": lambda scratch: str(scratch / "pipe"),
    "loop": lambda scratch: str(scratch / "loop"),
    "device": lambda _: "/dev/zero",
    "no such user": lambda _: "~there-is-no-such-user/x",
    "below /proc": lambda _: "/proc/flaxrnn/x",
    "control characters": lambda scratch: str(scratch / "\x1b[2J\n"),
}
USES: dict[str, Callable[[str], Any]] = {
    "load": flaxrnn.load,
    "compare": lambda path: compare.main([path]),
    "data.path": lambda path: custom.find_source(path, Fields("text", "label"), Format()).read(),
    "data.vectors": lambda path: vectors.read(path, Vocabulary(["a"]), 2),
    "WEIGHTS": lambda path: from_keras.read_weights(Path(path), SHAPES, 4),
    "archive": lambda path: (
        archive.read_members(path, re.compile("x")) if Path(path).is_file() else _refused_path(path)
    ),
}


def _refused_path(path: str) -> None:
    """Raises what the commands report for a path that cannot be read."""
    custom.find_source(path, Fields("text", "label"), Format())


def _use(scratch: Path, place: str, use: Callable[[str], Any]) -> None:
    (scratch / "file").write_text(json.dumps("x"))
    os.mkfifo(scratch / "pipe")
    (scratch / "loop").symlink_to("loop")
    try:
        use(PLACES[place](scratch))
    except OSError as error:  # the commands report it by its path
        _refused(error.filename is None)
    else:
        _refused()
