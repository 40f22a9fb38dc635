"""YAML text as plain data, with the line of each setting."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

#: Where a setting is: mapping keys and list positions from the top, e.g. ("writer", "partitions", 0).
Place: TypeAlias = tuple[str | int, ...]

# Far more than any real configuration has. The limit stops aliases that multiply each other.
_MOST_VALUES = 100_000


class YamlProblem(Exception):
    """The text is not YAML, or has no plain settings. ``line`` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line
        self.problem = problem


@dataclass(frozen=True)
class YamlSettings:
    """Plain data (dict, list, str, int, float, bool, None) and the line of each place in it."""

    data: Any
    lines: dict[Place, int]

    def line_of(self, place: Place) -> int:
        """The line of a place, or of the nearest setting around it when it is not in the text."""
        while place not in self.lines and place:
            place = place[:-1]
        return self.lines.get(place, 1)


class _PlainLoader(yaml.SafeLoader):
    """Reads dates as text: an unquoted 2024-01-01 is the name of a partition, not a calendar day."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(text: str) -> YamlSettings:
    """Parse one YAML document. Raises YamlProblem for bad syntax, unknown tags and settings given twice."""
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        lines: dict[Place, int] = {(): 1}
        if node is None:
            return YamlSettings(None, lines)
        return YamlSettings(_Reader(loader, lines).read(node, ()), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise YamlProblem(mark.line + 1 if mark else 1, f"this is not YAML: {problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlProblem(line, f"this is not YAML: {error.reason}") from error
    except RecursionError as error:
        raise YamlProblem(1, "the settings are nested too deeply to be read") from error


class _Reader:
    def __init__(self, loader: _PlainLoader, lines: dict[Place, int]) -> None:
        self._loader = loader
        self._lines = lines
        self._values = 0
        self._open: set[int] = set()

    def read(self, node: yaml.Node, place: Place) -> Any:
        self._values += 1
        line = node.start_mark.line + 1
        if self._values > _MOST_VALUES:
            raise YamlProblem(line, f"the configuration holds more than {_MOST_VALUES} values")
        if id(node) in self._open:
            raise YamlProblem(line, "this value contains itself through an alias")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, place)
            if isinstance(node, yaml.SequenceNode):
                return [self._item(child, (*place, index)) for index, child in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        self._refuse_settings_given_twice(node)
        self._loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            inside = (*place, key)
            self._lines[inside] = key_node.start_mark.line + 1
            found[key] = self.read(value_node, inside)
        return found

    def _refuse_settings_given_twice(self, node: yaml.MappingNode) -> None:
        # Check this before merge keys (<<) are flattened: a setting may override a merged one.
        first_lines: dict[str, int] = {}
        for key_node, _ in node.value:
            key, line = self._key(key_node), key_node.start_mark.line + 1
            if key in first_lines:
                raise YamlProblem(line, f"{key} is given twice, first on line {first_lines[key]}; keep one")
            first_lines[key] = line

    def _item(self, node: yaml.Node, place: Place) -> Any:
        self._lines[place] = node.start_mark.line + 1
        return self.read(node, place)

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise YamlProblem(node.start_mark.line + 1, "the name of a setting must be a word")
        return str(node.value)

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            return self._loader.construct_object(node, deep=True)
        except ValueError as error:
            found = str(node.value)[:40]
            raise YamlProblem(node.start_mark.line + 1, f"{found!r} cannot be read: {error}") from error
