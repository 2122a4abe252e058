"""Prints the table of every field in docs/config.md: python -m flaxrnn.config."""

from flaxrnn.config.parsing import to_markdown

print(to_markdown())
