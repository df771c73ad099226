"""What the tests share. All of them run offline, and write only into pytest's temporary folders."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# Before any test module imports transformers or datasets.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# One thread for each process: tiny tensors only lose time in a pool, and `make test` has a process for each core.
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent

# The longest files, longest first. A worker takes the next file when it has finished one, so short ones at the end let
# all workers end together.
LONGEST = (
    "test_notebooks",
    "test_ablation",
    "test_rehearse",
    "test_distributed",
    "test_resume",
    "test_sources",
    "test_pipeline",
    "test_use",
    "test_failures",
    "test_lessons",
    "test_report",
)


_FAULTS: dict[str, Counter] = {}  # part of tests/faults -> outcomes


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count outcomes for the summary. Not in tests/faults/conftest.py: xdist's main process does not load that one."""
    folder, _, module = report.nodeid.partition("::")[0].rpartition("/")
    if folder.endswith("tests/faults") and (report.when == "call" or not report.passed):
        part = module.removeprefix("test_").removesuffix(".py")
        _FAULTS.setdefault(part, Counter())[report.outcome] += 1


def pytest_terminal_summary(terminalreporter) -> None:
    if _FAULTS:
        terminalreporter.section("faults")
    for part, counts in sorted(_FAULTS.items()):
        total = sum(counts.values())
        terminalreporter.line(f"{part:12} {counts['passed']:4} of {total} passed, {counts['skipped']} skipped")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


def pytest_make_parametrize_id(val: Any) -> str | None:
    """Bytes go into a test's name by their length: gzip writes the time into them, and all workers need one name."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def demo_values(stage: str, **changes: Any) -> dict[str, Any]:
    """The demo preset's parameters of a stage, with `changes`: a test names only what it is about."""
    from finr1.params import read_flat_yaml

    return read_flat_yaml(ROOT / "params" / "demo" / f"{stage}.yaml").values | changes


@pytest.fixture(autouse=True)
def no_settings_of_the_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test sets what it needs; what the shell exports must not change its result."""
    keys = [name for name in os.environ if name.startswith("FINR1_API_KEY")]
    for name in ("FINR1_ROOT", "FINR1_OUTPUTS", "FINR1_LAUNCHED", *keys):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """No result of this process depends on whether the CPU here has bf16; a child process sees the CPU as it is."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": True})


@pytest.fixture(autouse=True)
def no_figure_of_another_test() -> Iterator[None]:
    """pyplot keeps each figure until it is closed; only a test that has drawn one imports it here."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real records: `$FINR1_DATA`, or `../shared/data` beside the clone."""
    folder = Path(os.environ.get("FINR1_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real records: FINR1_DATA is not set and there is no {folder}")
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model that is made in a second."""
    import torch
    from tiny_model import make_tiny_model

    torch.set_num_threads(1)  # tiny tensors only lose time in a pool
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the embedded model, which the first worker that needs it converts for all."""
    from filelock import FileLock

    from finr1.models import EMBEDDED_MODEL, resolve_model

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with FileLock(folder / "embedded.lock"):
        resolve_model(EMBEDDED_MODEL, folder / "embedded")
    return folder / "embedded"


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty outputs folder, in place of the clone's."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    monkeypatch.setenv("FINR1_OUTPUTS", str(folder))
    return folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository in place of the clone: tests put their own notebooks and presets there."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    monkeypatch.setenv("FINR1_ROOT", str(folder))
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in place of `finr1/`: of its modules, this process has loaded `rewards` and `plotting.style`."""
    from finr1 import manifest

    folder = tmp_path / "finr1"
    for name in (
        "rewards.py",
        "unused.py",
        "rewards.yaml",
        "ledger.yaml",
        "plotting/style.py",
        "plotting/paper.mplstyle",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("1\n", "utf8")
    for name in ("rewards", "plotting.style"):
        module = ModuleType(f"finr1.made_up.{name}")
        module.__file__ = str(folder / f"{name.replace('.', '/')}.py")
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(manifest, "_PACKAGE", folder)
    manifest.package_hashes.cache_clear()
    yield folder
    manifest.package_hashes.cache_clear()
