"""YAML as people write it: numbers as in YAML 1.2, and no key twice."""

from __future__ import annotations

import re
from typing import Any

try:
    import yaml
except ImportError as error:
    raise ImportError(
        "A spec in a YAML file needs PyYAML: pip install 'dropnorm[cli]'; a .json file does not."
    ) from error


class NotYaml(ValueError):
    """The text cannot be read; the message says where and why."""


def load(text: str) -> Any:
    """The plain data that a text says.

    Raises:
        NotYaml: it is no YAML, or uses tags beyond plain data.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # Besides its own errors PyYAML raises these where a value does not fit its tag: `!!bool 7`.
        raise NotYaml(str(error)) from error


class _Loader(yaml.SafeLoader):
    """PyYAML reads YAML 1.1, where 1e-3 and -.5 are text and the last of two equal keys wins."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                text = f"the key {key.value!r} stands twice in one mapping"
                raise yaml.composer.ComposerError(None, None, text, key.start_mark)
            seen.add((key.tag, key.value))
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    # A point or an exponent: whole numbers without either are YAML 1.1's to read.
    re.compile(
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?\Z|[-+]?[0-9]+[eE][-+]?[0-9]+\Z"
    ),
    list("-+.0123456789"),
)
