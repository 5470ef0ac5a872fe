"""Read YAML from an untrusted source: only what JSON has, and only as much as a manifest needs."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import yaml

DEEPEST = 12
"""Most mappings and lists inside each other. A manifest has 6."""
MOST_NODES = 4096
"""Most keys and values. A manifest with every part and every precision has about 500."""
LONGEST_NUMBER = 40
"""Most characters of a number."""
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
TEXT = "tag:yaml.org,2002:str"
MERGE = "tag:yaml.org,2002:merge"


def plain_yaml_as_json(text: str) -> str:
    """A YAML document as JSON. It takes time in proportion to the text, whatever the text holds.

    Raises ValueError for anything that is not YAML, and for aliases, keys that are no text or occur twice, values
    that JSON does not have (dates, sets, bytes), and more than the limits above.
    """
    try:
        loader = _PlainLoader(text)
        try:
            return json.dumps(loader.get_single_data())
        finally:
            loader.dispose()
    except _RefusedError:
        raise
    except Exception as error:  # PyYAML raises other errors than its own too
        raise ValueError(f"it is not valid YAML ({' '.join(str(error).split())})") from error


class _RefusedError(ValueError):
    """YAML that is valid, but not plain."""


class _PlainLoader(yaml.SafeLoader):
    """Stops at the first node that is not allowed, before it reads on."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _RefusedError("it uses YAML aliases, which a manifest never needs")
        self._depth += 1
        self._nodes += 1
        if self._depth > DEEPEST or self._nodes > MOST_NODES:
            raise _RefusedError(
                f"it has more than {DEEPEST} levels, or more than {MOST_NODES} keys and values"
            )
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        if node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise _RefusedError(f"it has a number of {len(node.value)} characters")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != TEXT:
                raise _RefusedError(f"line {key.start_mark.line + 1} has a key that is no text")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise _RefusedError(f"it has the key {twice!r:.60} twice")
        return super().construct_mapping(node, deep)
