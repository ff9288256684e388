"""YAML documents with strict keys: every scalar stays text, duplicate keys are problems, lines are known.

Scalars stay text because the type of a setting, not the look of a value, decides how it is read: `no`, `1e-3` and
`1:30` mean other things in YAML 1.1 than people expect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a YAML text says.

    Args:
        tree: Nested dicts, lists and strings; None for a plain null.
        lines: Line of each key by dotted path, counted from 1.
        faults: What is wrong, one sentence each, with its line.
    """

    tree: Any
    lines: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def read_document(path: Path) -> Document:
    """The document in the file `path`; what cannot be read becomes a fault, never an exception."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return Document(tree={}, faults=["there is no such file"])
    except IsADirectoryError:
        return Document(tree={}, faults=["it is a directory, not a YAML file"])
    except UnicodeDecodeError as error:
        return Document(tree={}, faults=[f"it is not UTF-8 text (byte {error.start})"])
    except OSError as error:
        return Document(tree={}, faults=[f"it cannot be read: {error.strerror or error}"])
    return parse_document(text)


def parse_document(text: str) -> Document:
    """The document in `text`, with its faults."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return Document(tree={}, faults=[f"it is not valid YAML: {where}{error.problem or error.context}"])
    except yaml.YAMLError as error:
        return Document(tree={}, faults=[f"it is not valid YAML: {' '.join(str(error).split())}"])
    document = Document(tree={}, faults=[])
    if root is None:
        return document
    tree = _plain(root, "", document, ())
    if not isinstance(tree, dict):
        return Document(tree={}, faults=[f"line 1: it is not a mapping of settings but {_noun(root)}"])
    return Document(tree=tree, lines=document.lines, faults=document.faults)


def _plain(node: yaml.Node, path: str, document: Document, above: tuple[int, ...]) -> Any:
    """Strings, lists and dicts of `node`; `above` holds the nodes around it, since aliases may form a loop."""
    if id(node) in above:
        document.faults.append(f"line {node.start_mark.line + 1}: {path or 'the document'} contains itself")
        return None
    above = (*above, id(node))
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == "tag:yaml.org,2002:null" else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain(entry, path, document, above) for entry in node.value]
    return _mapping(node, path, document, above)


def _mapping(node: yaml.Node, path: str, document: Document, above: tuple[int, ...]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            document.faults.append(f"line {line}: a key must be a name, not {_noun(key)}")
            continue
        inner = f"{path}.{key.value}" if path else key.value
        if key.value in result:
            document.faults.append(f"line {line}: {inner} is given twice, first in line {document.lines[inner]}")
            continue
        document.lines[inner] = line
        result[key.value] = _plain(value, inner, document, above)
    return result


def _noun(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "a single value"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
