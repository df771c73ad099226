"""The guides: what they quote, name and link is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

from finr1.params import NOTEBOOKS

PAGES = [*sorted((ROOT / "docs").glob("*.md")), *(ROOT / f"{name}.md" for name in ("README", "README.zh")),
         ROOT / "benchmarks" / "README.md", ROOT / "outputs" / "README.md"]  # fmt: skip
LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)#\s]*)(#[^)\s]*)?\)")
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def texts_of(path: Path) -> list[str]:
    """Every text in a module, neighbours joined as Python joins them, with `...` where a value is filled in."""
    texts = []
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.JoinedStr):
            texts.append("".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return texts


@pytest.fixture(scope="module")
def said() -> str:
    """What the package can say."""
    texts = [text for path in (ROOT / "finr1").rglob("*.py") for text in texts_of(path)]
    tables = [path.read_text("utf8") for path in (ROOT / "finr1").rglob("*.yaml")]
    texts += [re.sub(r"\{[^{}\n]+\}", "...", re.sub(r"\s+", " ", table)) for table in tables]
    return "\n".join(texts)


def messages() -> list[str]:
    page = (ROOT / "docs" / "troubleshooting.md").read_text("utf8")
    return re.findall(r"^### `(.+)`$", page, re.MULTILINE)


@pytest.mark.parametrize("message", messages())
def test_every_message_in_troubleshooting_is_one_of_the_package(message, said):
    assert message in said


def test_a_message_that_nobody_says_would_be_noticed(said):
    assert len(messages()) >= 15
    assert "the sampler is not your policy" not in said and "the sampler is not the policy" in said


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    for target, anchor in LINK.findall(CODE.sub("", page.read_text("utf8"))):
        if re.match(r"\w+:", target):
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), f"{page.name}: {target}"
        if anchor and there.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", there.read_text("utf8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
            assert anchor[1:] in slugs, f"{page.name}: {target}{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_and_parameter_of_a_page_exists(page, capsys):
    from finr1.__main__ import main

    text = page.read_text("utf8").replace("\\\n", " ")
    for name in sorted(set(re.findall(r"(?:python|finr1)[ ]-m finr1 ([a-z][a-z-]*)", text))):
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert end.value.code == 0 and "show this help message" in capsys.readouterr().out
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf8"), re.MULTILINE))
    code = "\n".join(span.strip("`") for span in CODE.findall(text))
    named = set(re.findall(r"(?m)(?:^|&& )make ([a-z-]+)", code))
    assert named <= targets, named - targets
    fields = {name for model in NOTEBOOKS.values() for name in model.model_fields} | plan_names()
    changed = re.findall(r"--set '?(?:\d\d_\w+\.)?([a-z_]+)=", text)
    assert set(changed) <= fields, set(changed) - fields


def plan_names() -> set[str]:
    """What `python -m finr1 plan` assumes, and lets one change."""
    import yaml

    return set(yaml.safe_load((ROOT / "finr1" / "plan.yaml").read_text("utf8"))["assumed"])


def test_each_entry_of_the_glossary_is_a_sentence_or_two_and_leads_to_a_notebook():
    page = (ROOT / "docs" / "glossary.md").read_text("utf8")
    entries = re.findall(r"^\*\*(.+?)\*\*: (.+)$", page, re.MULTILINE)
    assert len(entries) >= 50 and len({name for name, _ in entries}) == len(entries)
    assert [name for name, _ in entries] == sorted((name for name, _ in entries), key=str.casefold)
    for name, text in entries:
        explained = CODE.sub("", text)
        assert re.search(r"\(\[[\w, ]+\]\(\.\./notebooks/[\w/]+\.ipynb\)", explained), name
        assert len(explained.split()) <= 60, name


def test_the_readme_stays_short_and_the_chinese_one_is_no_longer():
    english, chinese = ((ROOT / f"{name}.md").read_text("utf8").splitlines() for name in ("README", "README.zh"))
    assert len(english) <= 150 and len(chinese) <= len(english)
    assert sum(bool(re.search("[\u4e00-\u9fff]", line)) for line in chinese) > 40
    assert "<!-- results -->" in english and "<!-- results -->" in chinese


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").rglob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_introduces_itself_in_chinese_too(path):
    import nbformat

    first = nbformat.read(path, as_version=4).cells[0].source
    assert re.search(r"\*\*中文\*\* \S.*：.{20,200}$", first.splitlines()[-1])
