"""Text files that people write: configurations, lists, tables. What is wrong is said in one line.

Numbers are read as OmegaConf reads them (`1e-4` is one, though YAML 1.1 takes it for a word), a key
given twice is an error, and a file that would unfold to millions of values is not unfolded.
"""

import codecs
import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import yaml

from data_modules.problems import DataError

MAX_BYTES = 10_000_000  # of a YAML file
MAX_VALUES = 100_000  # of a YAML file, those that aliases repeat included
MAX_DEPTH = 50  # of its nesting
CHANGED = ("float", "timestamp")  # what OmegaConf reads otherwise than YAML 1.1
FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:e[-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*e[-+]?[0-9]+
    |\.[0-9_]+(?:e[-+][0-9]+)?
    |[-+]?\.inf
    |\.nan)$""",
    re.VERBOSE | re.IGNORECASE,
)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte-order mark.

    Raises DataError that names the file, and the encoding it seems to have if that is another.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file that can be read")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} is not UTF-8 text but seems to be {_encoding(data)} (line {line}): save it as "
            "UTF-8, which every editor offers"
        ) from error


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; DataError names the file and what is wrong with it."""
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, name: str) -> Any:
    """The content of YAML text that errors call `name`."""
    try:
        if len(text) > MAX_BYTES:
            raise yaml.YAMLError(f"it is longer than {MAX_BYTES:,} characters")
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _require_small(node)
        return loader.construct_document(node)
    except RecursionError:
        raise DataError(f"{name}: nested deeper than {MAX_DEPTH} levels") from None
    except (yaml.YAMLError, ValueError) as error:
        raise DataError(f"{name} is no readable YAML: {' '.join(str(error).split())}") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file; DataError names the file and what is wrong with it."""
    try:
        return json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no readable JSON: {error}") from error


def read_table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Names of the columns of a CSV file, and its rows; a cell that is missing is empty."""
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), restval="")
    try:
        return list(reader.fieldnames or ()), list(reader)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}, is no readable CSV: {error}") from error


def _encoding(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    return "binary" if b"\0" in data else "Latin-1 or Windows-1252"


class _Loader(yaml.SafeLoader):
    """Plain values only; see the module's docstring."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in known if tag.rpartition(":")[2] not in CHANGED]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        repeated = [key for key, count in keys.items() if count > 1 and key != "<<"]
        if repeated:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"{repeated[0]!r} is given twice in what begins in line {line}")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+0123456789."))


def _require_small(root: yaml.Node) -> None:
    """Raise a YAMLError for what unfolds to too many values, nests too deeply, or holds itself."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested deeper than {MAX_DEPTH} levels, or holds itself")
        if id(node) not in sizes:
            inner: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                inner = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                inner = node.value
            sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in inner)
        return sizes[id(node)]

    if size(root, 0) > MAX_VALUES:
        raise yaml.YAMLError(f"it unfolds to more than {MAX_VALUES:,} values")
