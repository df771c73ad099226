"""The words, signs and patterns that the graders look for: what stands in units.yaml and words.yaml, by name."""

from pathlib import Path

import yaml

TABLES: dict = {}
for _path in sorted(Path(__file__).parent.glob("*.yaml")):
    TABLES |= yaml.safe_load(_path.read_text(encoding="utf8"))


def any_in(name: str) -> str:  # a pattern for any of the alternatives in the table `name`
    return "|".join(TABLES[name])
