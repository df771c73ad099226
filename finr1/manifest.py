"""What a manifest says about a run: hashes of files, code and inputs, versions, hardware, memory.

Environment variables are never recorded: keys live there.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from finr1.paths import repository_root

MANIFEST_FILE = "manifest.json"

# The packages whose version can change a result.
_PACKAGES = (
    "torch transformers trl peft datasets accelerate bitsandbytes vllm tokenizers safetensors "
    "numpy pandas scipy statsmodels aiohttp pydantic papermill"
).split()


def write_json(path: Path, value: Any) -> None:
    """Write `value` so that `path` is the old file or the whole new one, whatever kills us in between.

    NumPy scalars become numbers, paths text; NaN and infinity, which JSON lacks, become null.
    """
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy's scalars and arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def read_manifest(stage_dir: Path) -> dict[str, Any]:
    """The manifest of a complete stage; FileNotFoundError when there is none."""
    return json.loads((Path(stage_dir) / MANIFEST_FILE).read_text("utf8"))


def what_is_missing(stage_dir: Path) -> str | None:
    """Why `stage_dir` is not a complete stage, None when it is. Looks at names and sizes: hashing models takes long."""
    if not (stage_dir / MANIFEST_FILE).exists():
        return f"no {MANIFEST_FILE}"
    for name, entry in read_manifest(stage_dir)["outputs"].items():
        file = stage_dir / name
        if not file.is_file():
            return f"{name} is gone"
        if file.stat().st_size != entry["bytes"]:
            return f"{name} was changed after the stage was complete"
    return None


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_outputs(stage_dir: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """{file: sha256, bytes, rows}; a folder counts file by file, rows are the lines of JSONL and the rows of Parquet.

    Raises FileNotFoundError for a name that the stage has not written.
    """
    files: list[Path] = []
    for name in names:
        path = stage_dir / name
        if not path.exists():
            raise FileNotFoundError(f"{name} is named as an output, but {path} does not exist")
        files += [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(stage_dir)): _describe_file(file) for file in files}


def _describe_file(path: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    if path.suffix == ".jsonl":
        with path.open("rb") as file:
            entry["rows"] = sum(1 for line in file if line.strip())
    elif path.suffix == ".parquet":
        import pyarrow.parquet

        entry["rows"] = pyarrow.parquet.read_metadata(path).num_rows
    return entry


def outputs_sha256(outputs: dict[str, dict[str, Any]]) -> str:
    """One hash over all outputs: what a later stage depends on."""
    return digest({name: entry["sha256"] for name, entry in outputs.items()})


def notebook_sha256(stage: str) -> str | None:
    """Hash of the code cells of the stage's notebook; None where it has none.

    The parameters cell is left out: its values are in the manifest already, and prose changes no result.
    """
    path = repository_root() / "notebooks" / f"{stage}.ipynb"
    if not path.exists():
        return None
    cells = json.loads(path.read_text("utf8"))["cells"]
    code = [
        cell for cell in cells if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])
    ]
    return digest(["".join(cell["source"]) for cell in code])


def package_sha256() -> str:
    """Hash of the package's own source files."""
    folder = repository_root() / "finr1"
    return digest({str(path.relative_to(folder)): file_sha256(path) for path in sorted(folder.rglob("*.py"))})


def commit() -> dict[str, Any]:
    """{commit, dirty} of the clone; both None without git, or outside a clone of this project."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(repository_root()), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != repository_root():
            return {"commit": None, "dirty": None}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


def versions() -> dict[str, str]:
    """Python and the packages that matter, those that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """{cpu, cores, memory_gib, gpus}. GPUs are asked of the driver: torch would take up memory on them for it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu_name(), "cores": cores, "memory_gib": round(memory / 2**30, 1), "gpus": _gpu_names()}


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpu_names() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in output.splitlines() if line.strip()]


def peak_memory_gib() -> dict[str, float]:
    """Peak resident memory of this process, and of the largest single child that has ended."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes there, KiB elsewhere
    return {
        name: round(resource.getrusage(who).ru_maxrss * unit / 2**30, 2)
        for name, who in (("notebook", resource.RUSAGE_SELF), ("largest_child", resource.RUSAGE_CHILDREN))
    }


def package_hashes() -> dict[str, str]:
    """{path from the root: sha256} of the package's files."""
    root = repository_root()
    return {str(path.relative_to(root)): file_sha256(path) for path in sorted((root / "finr1").rglob("*.py"))}


def loaded_files(hashes: dict[str, str]) -> dict[str, str]:
    """Those of `hashes` that this process has loaded."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    return {name: value for name, value in hashes.items() if str(repository_root() / name) in files}


def changed_files(recorded: dict[str, str]) -> list[str]:
    """The files whose content is no longer the recorded one."""
    paths = {name: repository_root() / name for name in recorded}
    return [name for name, path in paths.items() if not path.exists() or file_sha256(path) != recorded[name]]
