"""Flat YAML as the presets use it: one `name: value  # comment` a line, readable by plain `papermill -f`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from finr1.params.errors import ParameterError


class FlatYaml(NamedTuple):
    """The values of a parameter file, and the comment that stands behind each of them."""

    values: dict[str, Any]
    comments: dict[str, str]


def read_flat_yaml(path: Path) -> FlatYaml:
    """Read a parameter file; raises ParameterError for broken YAML, no mapping, or a name given twice.

    (PyYAML itself lets the second of two equal names win without a word.)
    """
    text = Path(path).read_text("utf8")
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParameterError(str(path), [f"not readable as YAML: {error}"]) from None
    if not isinstance(root, yaml.MappingNode):
        raise ParameterError(str(path), ["should hold one `name: value` a line"])
    names = [key.value for key, _ in root.value]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ParameterError(str(path), [f"{name}: given twice" for name in twice])
    lines = text.splitlines()
    comments = {key.value: _comment_after(lines, value.end_mark) for key, value in root.value}
    return FlatYaml(values, comments)


def _comment_after(lines: list[str], mark: yaml.Mark) -> str:
    rest = lines[mark.line][mark.column :] if mark.line < len(lines) else ""
    return rest.partition("#")[2].strip()


def write_flat_yaml(path: Path, values: dict[str, Any]) -> None:
    """Write `values` in their order. Floats keep a point (`1.0e-05`), without which YAML reads them back as text."""
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=1000)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf8")
