"""Bytes of a custom file → its text; errors name the line and a likely encoding."""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zlib
from pathlib import Path

from flaxrnn.errors import DataError

_BYTE_ORDER_MARKS = {
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_MAX_BYTES = 2**31  # unpacked; a small file can unpack to any size
_SURE = 10  # characters beyond ASCII; fewer may be UTF-8 by chance
_SAMPLE = 10_000  # characters beyond ASCII that say whether a text is Korean
_CONTROLS = re.compile("[\0-\x08\x0e-\x1f\x7f-\x9f]")


def suffix_of(path: Path) -> str:
    """The suffix that names a file's format: in lower case, and without .gz."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def unzip(path: Path, content: bytes) -> bytes:
    """The content of a file, decompressed where its name ends in .gz.

    Raises:
        DataError: It is not in gzip format, incomplete, or of more than 2 GiB.
    """
    if path.suffix.lower() != ".gz":
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(_MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"data.path: {path} is not a complete .gz file ({error})") from None
    if len(unpacked) > _MAX_BYTES:
        raise DataError(f"data.path: {path} unpacks to more than {_MAX_BYTES / 2**20:,.0f} MiB")
    return unpacked


def decode(name: str, content: bytes, encoding: str, line: int = 1) -> str:
    """The content as text, without a byte order mark.

    Args:
        name: The name of its file, for errors.
        content: The bytes.
        encoding: The name of a Python text encoding.
        line: The number of its first line.

    Raises:
        DataError: The content is something else, or there is no such encoding.
    """
    try:
        decoded = content.decode(encoding)
        at = decoded.find("\0")
        if at < 0:
            _check_not_utf8(name, content, encoding)
            return decoded.removeprefix("\ufeff") if line == 1 else decoded
        before, problem = decoded[:at], "NUL, which no text contains"
    except LookupError:
        raise DataError(
            f"data.encoding: {encoding!r} must be the name of a Python text encoding, such as"
            " utf-8, utf-16, cp949 or latin-1"
        ) from None
    except UnicodeError as error:
        # A codec may have removed a byte order mark.
        removed = len(content) - len(getattr(error, "object", content))
        at = removed + getattr(error, "start", 0)
        before = content[:at].decode(encoding, "replace")
        problem = f"byte {at} (0x{content[at]:02x}) is not {encoding.upper()}"
    likely = _likely_encoding(content)
    perhaps = f" ({likely} fits)" if likely else ""
    raise DataError(
        f"data.path: {name}: line {line + before.count(chr(10))}: {problem}; save it as UTF-8, or"
        f" set data.encoding{perhaps}"
    )


def _check_not_utf8(name: str, content: bytes, encoding: str) -> None:
    """Refuses what another encoding can read, too, but surely was not written in it."""
    if codecs.lookup(encoding).name.startswith("utf"):
        return
    as_utf8 = _reads(content, "utf-8") or ""
    if sum(len(run) for run in re.findall("[^\0-\x7f]+", as_utf8)) >= _SURE:
        raise DataError(f"data.encoding: {name} is in UTF-8, not {encoding.upper()}; unset it")


def _likely_encoding(content: bytes) -> str | None:
    """An encoding that the content can be read in; None: it is no text."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark) and _reads(content, encoding):
            return encoding
    if 0 in content:  # ASCII characters have one in UTF-16
        zeros = content[1::2].count(0), content[0::2].count(0)
        encoding = "utf-16-le" if zeros[0] > zeros[1] else "utf-16-be"
        return encoding if max(zeros) > len(content) / 8 and _reads(content, encoding) else None
    if _reads(content, "utf-8"):
        return "utf-8"
    for encoding, looks_right in _GUESSES.items():
        decoded = _reads(content, encoding)
        if decoded and looks_right(decoded):
            return encoding
    return None


def _is_korean(decoded: str) -> bool:
    """Whether most characters are common syllables, as in bytes of Chinese and Japanese few are."""
    beyond = re.findall("[^\0-\x7fㄱ-ㅣ]", decoded)[:_SAMPLE]
    common = [c for c in beyond if "가" <= c <= "힣" and len(c.encode("euc_kr", "replace")) == 2]
    return len(common) > 0.75 * len(beyond)


def _is_western(decoded: str) -> bool:
    """Whether few letters have accents; bytes of another script read as if most had."""
    accented = len(re.findall("[À-ÿŒœŠšŽžŸ]", decoded))
    return accented < len(re.findall("[A-Za-z]", decoded)) / 3


_GUESSES = {"cp949": _is_korean, "latin-1": _is_western, "cp1252": _is_western}


def _reads(content: bytes, encoding: str) -> str | None:
    """The content as text; None: it has other bytes, or control characters."""
    try:
        decoded = content.decode(encoding)
    except UnicodeError:
        return None
    return None if _CONTROLS.search(decoded) else decoded
