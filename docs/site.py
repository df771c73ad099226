"""The site out of this clone and one run: mkdocs calls these hooks while it builds (`make site RUN=demo`).

A notebook becomes a Markdown page: its text, its code (plumbing closed) and the outputs that the run stored. mkdocs-jupyter
was tried: its pages fetch MathJax and mermaid from the network, open every import cell, and call each figure "png".
"""

import csv
import html
import json
import os
import posixpath
import re
from base64 import b64decode
from importlib.util import find_spec
from pathlib import Path

import nbformat
from latex2mathml.converter import convert as mathml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(os.environ.get("FINR1_ROOT") or Path(__file__).parent.parent).resolve()
RUN = ROOT / os.environ.get("FINR1_OUTPUTS", "outputs") / os.environ.get("RUN", "demo")
# Pages whose Markdown lies outside docs/: place in the clone -> place on the site.
ELSEWHERE = {"README.md": "index.md", "README.zh.md": "zh.md", "benchmarks/README.md": "speed.md",
             "outputs/README.md": "outputs.md", "finr1/grading/README.md": "grading-rules.md"}  # fmt: skip
CLOSED = {"hide-input", "injected-parameters"}
CODE_OR_LINK = re.compile(r"```.*?```|`[^`\n]+`|(?P<head>!?\[[^]\n]*\])\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)", re.S)
# CommonMark lets a list or a table follow its sentence; Python-Markdown wants an empty line between.
NO_EMPTY_LINE = re.compile(r"(?m)^(?![ \t]*(?:[-*|>#]|\d+\.)).*\S.*\n(?=(?:[-*]|\d+\.) |\|)")
_outputs: dict[str, list[str]] = {}


def notebooks() -> dict[str, Path]:
    """Place in the clone -> the copy that the run executed, or, where there is none, the notebook itself."""
    stored = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/lessons/**/*.ipynb")])
    return {path.relative_to(ROOT).as_posix(): next(iter(sorted(RUN.rglob(path.name))), path) for path in stored}


def places(files: Files) -> dict[str, str]:
    """Place in the clone -> place on the site."""
    made = {place: str(Path(place).with_suffix(".md").as_posix()) for place in notebooks()}
    return {f"docs/{file.src_uri}": file.src_uri for file in files if file.generated_by is None} | ELSEWHERE | made


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill in the notebooks, and leave out a page that this clone does not have."""
    chapters = {"Notebooks": [], "Lessons": []}
    for place in notebooks():
        chapters["Lessons" if "/lessons/" in place else "Notebooks"].append(str(Path(place).with_suffix(".md")))
    for entry in config.nav:
        for title, pages in entry.items():
            if isinstance(pages, list):
                there = [page for page in pages if exists(page if isinstance(page, str) else [*page.values()][0])]
                entry[title] = chapters.get(title, []) + there
    config.nav = [entry for entry in config.nav if [*entry.values()] != [[]]]
    config.repo_url = os.environ.get("REPO_URL") or None
    return config


def exists(page: str) -> bool:
    return page == "report.md" or page in ELSEWHERE.values() or (ROOT / "docs" / page).exists()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    known = places(files)
    for place, page in ELSEWHERE.items():
        text = relinked((ROOT / place).read_text("utf8"), place, known, config.repo_url)
        files.append(File.generated(config, page, content=text))
    for place, path in notebooks().items():
        for name, content in pages_of(place, path, known, config.repo_url).items():
            files.append(File.generated(config, name, content=content))
    font = Path(find_spec("ziamath").origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"
    files.append(File.generated(config, "math.ttf", abs_src_path=str(font)))
    report, told = RUN / "07_report" / "report.html", f"The run `{RUN.name}` has no report: it was not finished."
    if report.exists():
        files.append(File.generated(config, "report-page.html", abs_src_path=str(report)))
        said = (report.parent / "summary.txt").read_text("utf8")
        told = f"[Open the report](report-page.html){{ .md-button }}\n\n```text\n{said.strip()}\n```"
    text = f"# Report of the run `{RUN.name}`\n\nNotebook 07 wrote it as one file, with figures inside.\n\n{told}\n"
    files.append(File.generated(config, "report.md", content=text))
    return files


def pages_of(place: str, path: Path, known: dict[str, str], repo_url: str | None) -> dict[str, str | bytes]:
    """File of the site -> content: the page of one notebook, and its figures."""
    page, figures, shown = known[place], {}, _outputs.setdefault(known[place], [])
    shown.clear()
    lines, heading = [], ""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            lines += [relinked(cell.source, place, known, repo_url), "" if heading else said_of_run(path)]
            heading = next(iter(re.findall(r"(?m)^#+ (.+)", cell.source)[-1:]), heading)
        elif cell.cell_type == "code" and cell.source.strip():
            lines.append(code_block(cell))
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                name = f"{page.removesuffix('.md')}-{len(figures) + 1}.png"
                figures[name] = b64decode(output.data["image/png"])
                alt = output.metadata.get("image/png", {}).get("alt", f"Figure of the section {heading!r}")
                shown.append(figure(posixpath.basename(name), alt, f"Figure {len(figures)}"))
            else:
                shown.append(output_html(output))
            lines.append(f'<div data-output="{len(shown) - 1}"></div>')
    return figures | {page: "\n\n".join(lines)}


def said_of_run(path: Path) -> str:
    if not path.is_relative_to(RUN):
        return f"*The run `{RUN.name}` did not execute this notebook: it is shown without outputs.*"
    record = path.parent / "manifest.json"
    made = json.loads(record.read_text("utf8")) if record.exists() else {}
    seed = f", seed {made['seed']}, finished {made['finished'][:10]}" if {"seed", "finished"} <= made.keys() else ""
    return f"*As the run `{RUN.name}` executed it{seed}. Closed boxes hold code that only sets up.*"


def code_block(cell: nbformat.NotebookNode) -> str:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`{3,}", cell.source)), 3)
    block = f"{fence}python\n{cell.source}\n{fence}"
    tags = set(cell.metadata.get("tags", []))
    if not (tags & CLOSED or cell.metadata.get("jupyter", {}).get("source_hidden")):
        return block
    imports = cell.source.startswith(("import ", "from "))
    title = "Imports" if imports else "Parameters" if any("parameters" in tag for tag in tags) else "Code"
    return f'??? code "{title}"\n' + re.sub(r"(?m)^(?=.)", "    ", block)


def output_html(output: nbformat.NotebookNode) -> str:
    """A stored output; of one in several forms, HTML before text. A widget without HTML shows nothing."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "text/html" in data:
        return f'<div class="output html" data-search-exclude>{data["text/html"]}</div>'
    if any("widget-view" in kind for kind in data):
        return ""
    text = re.sub(r"\x1b\[[0-9;]*m|[^\n]*\r(?!\n)", "", data.get("text/markdown") or data.get("text/plain", ""))
    return f'<pre class="output" data-search-exclude tabindex="0">{html.escape(text.rstrip())}</pre>' if text else ""


def figure(name: str, alt: str, number: str) -> str:
    image = f'<img src="{html.escape(name)}" alt="{html.escape(alt)}" loading="lazy">'
    return f'<figure><a href="{html.escape(name)}">{image}</a><figcaption>{number}. {html.escape(alt)}</figcaption></figure>'


def relinked(text: str, place: str, known: dict[str, str], repo_url: str | None) -> str:
    """`text` of a file of the clone with its links as the site has them; code stays as it is."""

    def link(match: re.Match) -> str:
        if not match["path"]:
            return match[0]
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), match["path"]))
        if target in known:
            there = posixpath.relpath(known[target], posixpath.dirname(known[place]) or ".")
            return f"{match['head']}({there}{match['anchor'] or ''})"
        if repo_url and (ROOT / target).exists():
            return f"{match['head']}({repo_url}/blob/HEAD/{target})"
        return match["head"][1:-1] if (ROOT / target).exists() else match[0]  # a dead link stays one: the build fails

    return CODE_OR_LINK.sub(link, text)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.file.generated_by is None:
        markdown = relinked(markdown, f"docs/{page.file.src_uri}", places(files), config.repo_url)
    markdown = markdown.replace("<!-- seeds -->", seeds())
    parts = re.split(r"(?ms)(^ *```.*?^ *```)", markdown)
    return "".join(part if i % 2 else NO_EMPTY_LINE.sub(r"\g<0>\n", part) for i, part in enumerate(parts))


def seeds() -> str:
    """The table of params/demo/seeds.csv, or that there is none yet."""
    rows = list(csv.reader((ROOT / "params" / "demo" / "seeds.csv").read_text("utf8").splitlines()))
    if len(rows) < 2:
        return "**No run is listed yet.** This table fills as complete runs of the demo's parameters are added to it."
    table = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(name.replace('_', ' ') for name in row)} |" for row in table)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in the outputs as they were stored, and each formula as MathML, which needs no script."""
    shown = _outputs.get(page.file.src_uri, [])
    content = re.sub(r'<div data-output="(\d+)"></div>', lambda match: shown[int(match[1])], content)

    def formula(match: re.Match) -> str:
        tex, display = html.unescape(match[3]), "block" if match[1] == "div" else "inline"
        return mathml(tex, display=display)

    return re.sub(r'(?s)<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', formula, content)
