import collections

import pytest

from flaxrnn.errors import ConfigError
from flaxrnn.runtime import plugins


def test_class_or_function_is_imported_by_name():
    assert plugins.load("f", "collections:OrderedDict", dict) is collections.OrderedDict
    assert plugins.load("f", "collections:namedtuple") is collections.namedtuple
    with pytest.raises(ConfigError, match="f: collections has no function or class named 'other'"):
        plugins.load("f", "collections:other")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("collections:namedtuple", "f: collections has no subclass of dict named 'namedtuple'"),
        ("collections:deque", "f: collections has no subclass of dict named 'deque'"),
        ("collections:nothing", "f: collections has no subclass of dict named 'nothing'"),
        ("no_such.module:A", "f: no_such.module cannot be imported: No module named 'no_such'"),
        ("broken:A", "f: broken cannot be imported: one two"),
    ],
)
def test_name_that_is_none_is_refused_in_one_line(name, message, tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("raise ValueError('one\\ntwo')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError) as caught:
        plugins.load("f", name, dict)
    assert str(caught.value) == message
