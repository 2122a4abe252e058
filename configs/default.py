"""Every field at its default; each task's config starts from here.

`flaxrnn/config/fields.py` declares the fields, docs/config.md lists them.
"""

from ml_collections import ConfigDict

from flaxrnn import config


def get_config() -> ConfigDict:
    """Returns the defaults."""
    return config.default_config()
