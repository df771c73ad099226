"""What a manifest says of a stage: hashes, versions, hardware, memory; no environment variables, as keys live there."""

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from pydantic_core import to_json

from finr1.paths import Unreadable, replacing, repository_root, shown

MANIFEST_FILE = "manifest.json"
LARGE = 64 * 2**20  # bytes; of a larger file some blocks are compared, while its size and time are the recorded ones
_BLOCK, _KINDS = 2**20, dict.fromkeys(("outputs", "parameters", "inputs", "code", "metrics"), dict)
_KINDS |= {"seed": int, **dict.fromkeys(("outputs_sha256", "stage", "run", "finished"), str)}
_LOADED = (".json", ".jinja", ".safetensors", ".bin", ".model", ".txt", ".parquet")  # what is read of a folder, by name
_PACKAGE = Path(__file__).resolve().parent
_PACKAGE_SUFFIXES = (".py", ".yaml", ".json", ".mplstyle", ".html", ".j2")
_LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "vllm", "tokenizers",
              "safetensors", "numpy", "pandas", "scipy", "statsmodels", "openai", "pydantic", "papermill")  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    """Write `value` as `replacing` does; NaN and infinity, which JSON lacks, become null, NumPy's arrays lists."""
    with replacing(path) as file:
        file.write(to_json(value, indent=2, inf_nan_mode="null", fallback=lambda array: array.tolist()) + b"\n")


def read_object(path: Path, kinds: Mapping[str, type], absent: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object in `path`, of these kinds of values, or ValueError; without a file `absent`, or an OSError."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ValueError("a folder, a pipe or a device, not a file")
        value = json.loads(path.read_bytes())
        if isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in kinds.items()):
            return value
        raise ValueError("entries are missing or of another kind")
    except (FileNotFoundError, NotADirectoryError):
        if absent is None:
            raise
        return absent
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(f"{shown(path)} can't be read ({error}){making(path.parent)}") from None


def read_manifest(stage_dir: Path) -> dict[str, Any]:
    """The manifest of a complete stage; FileNotFoundError when there is none, ValueError when it can't be read."""
    record = read_object(path := Path(stage_dir) / MANIFEST_FILE, _KINDS)
    outputs, code = record["outputs"], record["code"]
    within = [Path(name).parts for name in outputs]  # a stage that is made again removes what it finds there
    inner = [code.get("notebook", {}), code.get("files", {}), record.get("phases_s", {}), *outputs.values()]
    if all(isinstance(part, dict) for part in inner) and all(at and not {"/", ".."} & {*at} for at in within):
        if digest({name: entry.get("sha256") for name, entry in outputs.items()}) == record["outputs_sha256"]:
            return record
    raise Unreadable(f"{shown(path)} can't be read (its entries do not belong together){making(path.parent)}")


def what_is_missing(stage_dir: Path) -> str | None:
    """Why `stage_dir` is not a complete stage, None when it is: each output is compared with its hash."""
    try:
        outputs, changed = read_manifest(stage_dir)["outputs"], changed_outputs(stage_dir)
    except (FileNotFoundError, ValueError) as error:
        return f"{MANIFEST_FILE} can't be read" if isinstance(error, ValueError) else f"no {MANIFEST_FILE}"
    how = "was removed or changed" if changed and changed[0] in outputs else "was added, and would be read,"
    return f"{changed[0]} {how} after the stage was complete" if changed else None


def unfinished(stage_dir: Path) -> str | None:
    """Why nothing can be read from a stage's folder, and the command that makes it; None where it is complete."""
    missing = what_is_missing(stage_dir)
    return missing and f"not a complete stage ({missing}){making(stage_dir, force='changed' in missing)}"


def making(stage_dir: Path, force: bool = False) -> str:
    """`; notebooks/... makes it: COMMAND`, or nothing for a folder that is no stage of a run."""
    run, stage = stage_dir.parent.name, stage_dir.name
    if not re.match(r"0[0-7]_", stage):
        return ""
    command = f"python -m finr1 run --preset PRESET --run {run} --until {stage}{f' --force {stage}' if force else ''}"
    return f"; notebooks/{stage}.ipynb makes it: `{command}`"


def changed_outputs(stage_dir: Path) -> list[str]:
    """The outputs of a complete stage that are not what `finish` has hashed, and what was added to a folder of them."""
    outputs = read_manifest(stage_dir)["outputs"]
    folders = {Path(name).parts[0] for name in outputs if len(Path(name).parts) > 1} - {"figures", "export"}
    files = [path for folder in folders for path in (stage_dir / folder).glob("*") if path.suffix in _LOADED]
    added = sorted({str(path.relative_to(stage_dir)) for path in files} - outputs.keys())
    return [name for name, entry in outputs.items() if not _is_as_described(stage_dir / name, entry)] + added


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there; never one that holds the project."""
    if repository_root().resolve().is_relative_to(path.resolve()):
        raise ValueError(f"{path} holds the project and is not removed")
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def digest(value: Any) -> str:
    """SHA-256 (hex) of a JSON value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sampled_sha256(path: Path) -> str:
    """SHA-256 of a file's size and of 64 blocks from its first to its last; of all of a file that is not `LARGE`."""
    if not path.is_file():  # a pipe would be waited for
        raise OSError(f"{path}: not a file")
    size = path.stat().st_size
    hashed = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for start in [*range(0, size, max(_BLOCK, size // 63)), max(0, size - _BLOCK)]:
            file.seek(start)
            hashed.update(file.read(_BLOCK))
    return hashed.hexdigest()


def _is_as_described(path: Path, entry: Mapping[str, Any]) -> bool:
    """Whether an output is what `finish` has hashed; of a large one of the same time, a sample of it is compared."""
    try:
        if not path.is_file() or (found := path.stat()).st_size != entry["bytes"]:
            return False
        if found.st_mtime_ns == entry.get("mtime_ns") and os.environ.get("FINR1_VERIFY") != "all":
            return sampled_sha256(path) == entry["sampled_sha256"]
        return file_sha256(path) == entry["sha256"]
    except (OSError, KeyError, TypeError):
        return False


def describe_outputs(stage_dir: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """{file: bytes and sha256; of a large one its time and a sampled hash, too}; a folder counts file by file.

    Raises `FileNotFoundError` for a name that the stage has not written.
    """
    described: dict[str, dict[str, Any]] = {}
    for path in (stage_dir / name for name in names):
        if not path.exists():
            raise FileNotFoundError(f"{path} is named as an output, but does not exist")
        for file in [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()):
            found = file.stat()
            entry = described[str(file.relative_to(stage_dir))] = {"sha256": file_sha256(file), "bytes": found.st_size}
            if found.st_size > LARGE:
                entry |= {"mtime_ns": found.st_mtime_ns, "sampled_sha256": sampled_sha256(file)}
    return described


@cache
def package_hashes() -> dict[str, str]:
    """{"finr1/rewards.py": SHA-256} of all code and data of this package at the first call: what this process runs."""
    files = [path for path in sorted(_PACKAGE.rglob("*")) if path.suffix in _PACKAGE_SUFFIXES]
    return {path.relative_to(_PACKAGE.parent).as_posix(): file_sha256(path) for path in files}


def loaded_files(hashes: dict[str, str]) -> dict[str, str]:
    """Those of `hashes` that this process has loaded: its modules, and the data files beside them.

    A data file belongs to the modules of its folder; in the package's root, to the module of its name. What lies in
    `sandbox` runs in a process of its own, and counts with its folder.
    """
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    loaded = {Path(file).resolve() for file in files if file}
    folders = {path.parent for path in loaded} - {_PACKAGE}

    def counts(path: Path) -> bool:
        if path.suffix == ".py" and path.parent.name != "sandbox":
            return path in loaded
        return path.parent in folders or path.with_name(path.name.partition(".")[0] + ".py") in loaded

    return {name: sha256 for name, sha256 in hashes.items() if counts(_PACKAGE.parent / name)}


def changed_files(recorded: dict[str, str]) -> list[str]:
    """The files of `recorded` whose content on disk is another one by now, or that are gone."""
    paths = {name: _PACKAGE.parent / name for name in recorded}
    return [name for name, path in paths.items() if not path.is_file() or file_sha256(path) != recorded[name]]


def notebook_code(notebook: Path | str) -> dict[str, str]:
    """{function: hash of the cell that defines it}, and under "" the hash of all other code cells of a file or text.

    Cells of parameters are left out: the manifest has their values already. Without a notebook there are no entries.
    """
    file = notebook if isinstance(notebook, Path) and notebook.exists() else None
    text = file.read_text("utf8") if file else notebook if isinstance(notebook, str) else ""
    hashes, others = {}, []
    for cell in json.loads(text)["cells"] if text else []:
        source, tags = "".join(cell["source"]), cell["metadata"].get("tags", [])
        if cell["cell_type"] == "code" and not {"settings", "parameters"}.intersection(tags):
            defined = re.findall(r"^(?:async )?def (\w+)", source, re.MULTILINE)
            hashes |= dict.fromkeys(defined, digest(source))
            others += [] if defined else [source]
    return hashes | ({"": digest(others)} if text else {})


def changed_code(stage: str, recorded: dict[str, Any]) -> list[str]:
    """What differs from the `code` of a stage's manifest, in words: cells of its notebook, and package files."""
    now, before = notebook_code(repository_root() / "notebooks" / f"{stage}.ipynb"), recorded.get("notebook", {})
    names = [name for name in now | before if now.get(name) != before.get(name)]
    cells = [f"cell `{name}` of its notebook" if name else "other cells of its notebook" for name in names]
    return cells + changed_files(recorded.get("files", {}))


def commit() -> str | None:
    """The clone's commit, "-dirty" behind it where a file that git knows was changed; None outside of a clone.

    Of a notebook its code counts: JupyterLab writes outputs into one that is open, and a person settings.
    """
    git = ("git", "-C", str(root := repository_root()))
    files = (_told(*git, "diff", "--name-only", "--relative", "HEAD") or "").splitlines()
    before = {file: (_told(*git, "show", f"HEAD:./{file}") or "") for file in files if file.endswith(".ipynb")}
    try:
        dirty = any(file not in before or notebook_code(root / file) != notebook_code(before[file]) for file in files)
    except ValueError:  # no notebook any more
        dirty = True
    return (head := _told(*git, "rev-parse", "HEAD")) and head + "-dirty" * dirty


def versions() -> dict[str, str]:
    """Python and the installed libraries whose version can change a result."""
    installed = {package.name: package.version for package in importlib.metadata.distributions()}
    return {"python": platform.python_version()} | {name: installed[name] for name in _LIBRARIES if name in installed}


def hardware() -> dict[str, Any]:
    """{cpu, cpu_bf16, cores, memory_gib, gpus}. torch would take up memory on GPUs, so their driver is asked."""
    cpus = Path("/proc/cpuinfo").read_text("utf8") if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*:\s*(.*)", cpus, re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cpu_bf16": bool(re.search(r"\b(avx512_|amx_)?bf16\b", cpus)) if cpus else None,  # as models.native_dtype asks
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": (_told("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader") or "").splitlines(),
    }


def peak_memory_gib() -> dict[str, float]:
    """Peak resident memory of this process, and of the largest single child that has ended."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes there, KiB elsewhere
    asked = {"notebook": resource.RUSAGE_SELF, "largest_child": resource.RUSAGE_CHILDREN}
    return {name: round(resource.getrusage(who).ru_maxrss * unit / 2**30, 2) for name, who in asked.items()}


def _told(*command: str) -> str | None:
    """What a command prints; None when it prints nothing, fails, or is not there."""
    with suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip() or None
    return None
