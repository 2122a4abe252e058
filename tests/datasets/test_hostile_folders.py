"""A folder of texts may come from anybody: nothing outside is read, no file stops the run."""

import os
import re

import pytest

from flaxrnn.datasets import custom
from flaxrnn.datasets.reading import Format
from flaxrnn.datasets.rows import Fields
from flaxrnn.errors import DataError

SECRET = "the content of another file"


def link_out(path):
    secret = path.parents[2] / "secret.txt"
    secret.write_text(SECRET)
    path.symlink_to(secret)
    return "is a link out of"


def folder_out(path):
    outside = path.parents[2] / "outside"
    outside.mkdir()
    (outside / "x.txt").write_text(SECRET)
    (path.parents[1] / "elsewhere").symlink_to(outside)
    return "is a link out of"


def pipe(path):
    os.mkfifo(path)
    return "it is no regular file"


def device(path):
    path.symlink_to("/dev/zero")
    return "is a link out of"


def loop(path):
    path.symlink_to(path)
    return "Too many levels of symbolic links"


def huge(path):
    with path.open("wb") as file:
        file.truncate(2**36)
    return "it has more than 64 MiB"


def directory(path):
    path.mkdir()
    return "Is a directory"


ATTACKS = (link_out, folder_out, pipe, device, loop, huge, directory)


CASES = [(attack, labels) for attack in ATTACKS for labels in (True, False)]
CASES.remove((folder_out, False))  # without labels, links to folders are not followed


@pytest.mark.parametrize(("attack", "labels"), CASES)
def test_a_file_that_is_no_text_is_refused_by_name(attack, labels, tmp_path):
    for name in ("up", "down"):
        (tmp_path / "texts" / name).mkdir(parents=True)
        (tmp_path / "texts" / name / "a.txt").write_text("a text")
    problem = attack(tmp_path / "texts" / "up" / "b.txt")
    fields = Fields("text", "label" if labels else None)
    with pytest.raises(DataError, match=re.escape(problem)) as refused:
        custom.find_source(str(tmp_path / "texts"), fields, Format())
    name = "x.txt" if attack is folder_out else "b.txt"
    assert name in str(refused.value)
    assert SECRET not in str(refused.value)


def test_links_within_the_folder_are_read(tmp_path):
    (tmp_path / "texts" / "up").mkdir(parents=True)
    (tmp_path / "texts" / "up" / "a.txt").write_text("a text")
    (tmp_path / "texts" / "up" / "b.txt").symlink_to("a.txt")
    (tmp_path / "linked").symlink_to("texts")
    source = custom.find_source(str(tmp_path / "linked"), Fields("text", "label"), Format())
    assert [example.text for example in source.read()] == ["a text"] * 2
