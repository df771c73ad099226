"""The site out of this clone and one run: mkdocs calls these hooks while it builds (`make site RUN=demo`).

A notebook becomes a Markdown page: its text, its code (plumbing closed) and the outputs that the run stored. We tried
mkdocs-jupyter: its pages fetch MathJax and mermaid from the network, open every import cell, and call a figure "png".
"""

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
from mkdocs.exceptions import ConfigurationError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / os.environ.get("FINR1_OUTPUTS", "outputs") / os.environ.get("RUN", "demo")
REPO_URL = os.environ.get("REPO_URL")  # of the hosted clone: files that are no page are linked there
# Pages whose Markdown lies outside docs/: place in the clone -> place on the site.
ELSEWHERE = {"README.md": "index.md", "README.zh.md": "zh.md", "benchmarks/README.md": "speed.md",
             "outputs/README.md": "outputs.md", "finr1/grading/README.md": "grading-rules.md",
             "finr1/sources/README.md": "sources.md"}  # fmt: skip
CODE = r"```.*?```|`[^`\n]+`"
CODE_OR_LINK = re.compile(CODE + r"|(?P<head>!?\[[^]\n]*\])\((?P<path>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)", re.S)
# CommonMark lets a list or a table follow its sentence; Python-Markdown wants an empty line between.
NO_EMPTY_LINE = re.compile(r"(?m)^(?![ \t]*(?:[-*] |\d+\. |[|>])).*\S.*\n(?=(?:[-*]|\d+\.) |\|)")
_outputs: dict[str, list[str]] = {}  # page -> HTML of its outputs, put in when Markdown is done


def notebooks() -> dict[str, Path]:
    """Place in the clone -> the copy that the run executed, or, where there is none, the notebook itself."""
    stored = sorted([*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("notebooks/lessons/**/*.ipynb")])
    return {path.relative_to(ROOT).as_posix(): next(iter(sorted(RUN.rglob(path.name))), path) for path in stored}


def places(files: Files) -> dict[str, str]:
    """Place in the clone -> place on the site."""
    guides = {f"docs/{file.src_uri}": file.src_uri for file in files if file.generated_by is None}
    return guides | ELSEWHERE | {place: place.replace(".ipynb", ".md") for place in notebooks()}


def on_config(config: MkDocsConfig) -> None:
    """Put notebooks, lessons and guides that mkdocs.yml does not name into the navigation; refuse an unknown run."""
    if not RUN.is_dir():
        raise ConfigurationError(f"there is no run {RUN}: `make demo` makes one, `make site RUN=NAME` takes another")
    pages = [place.replace(".ipynb", ".md") for place in notebooks()]
    lessons = [page for page in pages if "/lessons/" in page]
    chapters = {"Notebooks": [page for page in pages if page not in lessons]}
    guides = {path.name for path in (ROOT / "docs").glob("*.md")} - set(re.findall(r"[\w-]+\.md", str(config.nav)))
    chapters |= {"Lessons": lessons + sorted(guides & {"course.md"}), "Guides": sorted(guides - {"course.md"})}
    nav = [{title: old + chapters.get(title, []) for title, old in entry.items()} for entry in config.nav]
    config.nav = [entry for entry in nav if [*entry.values()] != [[]]]
    config.repo_url = REPO_URL


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks with their figures, the READMEs, the report, and the font of the formulas."""
    known = places(files)
    made = {page: relinked((ROOT / place).read_text("utf8"), place, known) for place, page in ELSEWHERE.items()}
    for place, path in notebooks().items():
        made |= pages_of(place, path, known)
    font = Path(find_spec("ziamath").origin).parent / "fonts" / "STIXTwoMath-Regular.ttf"
    copied, report, told = {"math.ttf": font}, RUN / "07_report" / "report.html", "The run is not finished."
    if report.exists():
        copied["report-page.html"] = report
        said = report.with_name("summary.txt").read_text("utf8").strip()
        told = f"[Open the report](report-page.html){{ .md-button }}\n\n```text\n{said}\n```"
    made["report.md"] = f"# Report of the run `{RUN.name}`\n\nNotebook 07 wrote it, as one file.\n\n{told}\n"
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    for name, source in copied.items():
        files.append(File.generated(config, name, abs_src_path=str(source)))
    return files


def pages_of(place: str, path: Path, known: dict[str, str]) -> dict[str, str | bytes]:
    """File of the site -> content: the page of one notebook, and its figures."""
    page, figures, lines, heading = known[place], {}, [], ""
    shown = _outputs[page] = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown":
            lines += [relinked(cell.source, place, known), "" if heading else made_by(path)]
            heading = next(iter(re.findall(r"(?m)^#+ (.+)", cell.source)[-1:]), heading)
        elif cell.cell_type == "code" and cell.source.strip():
            lines.append(code_block(cell))
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                name = page.replace(".md", f"-{len(figures) + 1}.png")
                figures[name] = b64decode(output.data["image/png"])
                alt = html.escape(output.metadata.get("image/png", {}).get("alt", f"Figure of the section {heading}"))
                image = f'<a href="{Path(name).name}"><img src="{Path(name).name}" alt="{alt}"></a>'
                shown.append(f"<figure>{image}<figcaption>Figure {len(figures)}. {alt}</figcaption></figure>")
            else:
                shown.append(output_html(output))
            lines.append(f'<div data-output="{len(shown) - 1}"></div>')
    return figures | {page: "\n\n".join(lines)}


def made_by(path: Path) -> str:
    if not path.is_relative_to(RUN):
        return f"*The run `{RUN.name}` did not execute this notebook: it is shown without outputs.*"
    record = path.with_name("manifest.json")
    made = json.loads(record.read_text("utf8")) if record.exists() else {}
    when = f", seed {made['seed']}, finished {made['finished'][:10]}" if made else ""
    return f"*As the run `{RUN.name}` executed it{when}. Closed boxes hold code that only sets up.*"


def code_block(cell: nbformat.NotebookNode) -> str:
    fence = max(re.findall("`+", cell.source) + ["``"], key=len) + "`"
    block, tags = f"{fence}python\n{cell.source}\n{fence}", cell.metadata.get("tags", [])
    closed = {"hide-input", "injected-parameters"} & {*tags} or cell.metadata.get("jupyter", {}).get("source_hidden")
    title = "Parameters" if any("parameters" in tag for tag in tags) else "Code"
    title = "Imports" if cell.source.startswith(("import ", "from ")) else title
    return f'??? code "{title}"\n' + re.sub("(?m)^(?=.)", "    ", block) if closed else block


def output_html(output: nbformat.NotebookNode) -> str:
    """A stored output; of one in several forms, HTML before text. A widget without HTML shows nothing."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    if "text/html" in data:
        shown = data["text/html"].replace('href="report.html"', 'href="../report-page.html"')  # notebook 07's link
        return f'<div class="output" data-search-exclude>{shown}</div>'
    text = "" if any("widget" in kind for kind in data) else data.get("text/markdown") or data.get("text/plain", "")
    text = html.escape(re.sub(r"\x1b\[[0-9;]*m|[^\n]*\r(?!\n)", "", text).rstrip())
    return f'<pre class="output" data-search-exclude tabindex="0">{text}</pre>' if text else ""


def relinked(text: str, place: str, known: dict[str, str]) -> str:
    """`text` of a file of the clone with its links as the site has them; code stays as it is."""

    def link(match: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), match["path"] or ""))
        if not match["path"] or not (ROOT / target).exists():
            return match[0]  # a dead link stays one, and the build fails
        if target in known:
            there = posixpath.relpath(known[target], posixpath.dirname(known[place]) or ".")
            return f"{match['head']}({there}{match['anchor'] or ''})"
        return f"{match['head']}({REPO_URL}/blob/HEAD/{target})" if REPO_URL else match["head"][1:-1]

    return CODE_OR_LINK.sub(link, text)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    if page.file.generated_by is None:
        markdown = relinked(markdown, f"docs/{page.file.src_uri}", places(files))
    markdown = markdown.replace("<!-- seeds -->", seeds())
    parts = re.split(r"(?ms)(^ *```.*?^ *```)", markdown)  # text, code, text, ...
    return "".join(part if i % 2 else NO_EMPTY_LINE.sub(r"\g<0>\n", part) for i, part in enumerate(parts))


def seeds() -> str:
    """The table of params/demo/seeds.csv, or that there is none yet."""
    rows = (ROOT / "params" / "demo" / "seeds.csv").read_text("utf8").replace("_", " ").replace(",", " | ").splitlines()
    if len(rows) < 2:
        return "**No run is listed yet.** This table fills as complete runs of the demo's parameters are added to it."
    return "\n".join([rows[0], " | ".join("---" for _ in rows[0].split(" | ")), *rows[1:]])


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put in the outputs as they were stored, and each formula as MathML, which needs no script."""
    shown = _outputs.get(page.file.src_uri, [])
    content = re.sub(r'<div data-output="(\d+)"></div>', lambda match: shown[int(match[1])], content)

    def formula(match: re.Match) -> str:
        return mathml(html.unescape(match[2]), display="block" if match[1] == "div" else "inline")

    return re.sub(r'(?s)<(span|div) class="arithmatex">\\[([](.*?)\\[])]</\1>', formula, content)
