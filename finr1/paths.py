"""Where things are: a path counts from the repository's root, and so means the same in papermill and in JupyterLab."""

import errno
import fcntl
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import yaml


def repository_root() -> Path:
    """The folder with notebooks and presets above this package, or `$FINR1_ROOT`; else `FileNotFoundError`."""
    root = Path(os.environ.get("FINR1_ROOT") or Path(__file__).parent.parent).resolve()
    if not (root / "pyproject.toml").exists():
        raise FileNotFoundError(f"no pyproject.toml in {root}: install finr1 from its clone (`pip install -e .`)")
    return root


def outputs_root() -> Path:
    """The folder that holds all runs: `outputs/` in the root; `$FINR1_OUTPUTS` overrides it."""
    return repository_root() / (os.environ.get("FINR1_OUTPUTS") or "outputs")


def cache_dir() -> Path:
    """What several runs share and any of them can make again, such as the converted embedded model."""
    return outputs_root() / "cache"


def preset_names() -> list[str]:
    """The folders of `params/` that hold parameters of stages (`params/accelerate/` holds other files)."""
    return sorted({path.parent.name for path in (repository_root() / "params").glob("*/[0-9][0-9]_*.yaml")})


def resolve(path: str) -> Path:
    """`path` from the root; one that starts with `outputs/` from `outputs_root()`; an absolute one as it is."""
    first, *rest = Path(path).parts or ("",)
    return outputs_root().joinpath(*rest) if first == "outputs" else repository_root() / path


def run_folder(name: str) -> Path:
    """The folder of a run that a person names: one of `outputs_root()`, or a path, from here or from the root."""
    candidates = [outputs_root() / name, Path(name).absolute(), resolve(name)]
    return Path(os.path.normpath(next((path for path in candidates if path.is_dir()), candidates[0])))


def shown(path: Path) -> str:
    """`path` as a person wants to read it: from the root where it lies below it."""
    root = repository_root()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def data_beside(module: str, name: str) -> Any:
    """The content of the YAML file `name` that lies beside a module, which passes its `__file__`."""
    return yaml.safe_load(Path(module).with_name(name).read_text("utf8"))


def remedy(told: object) -> str:
    """What mends the failed writing that an error, or its text, tells of (`paths.yaml`); "" for any other error."""
    number = re.search(r"(?:\[Errno|os error) (\d+)", str(told))
    what = errno.errorcode.get(int(number[1]), "") if number else str(told)
    remedies = data_beside(__file__, "paths.yaml")
    return next((mends for tells, mends in remedies.items() if re.search(tells, what)), "")


class MessageAlone:
    """An error whose message says all: a notebook shows that, and no traceback."""

    def _render_traceback_(self) -> list[str]:
        time.sleep(1)  # ipykernel drops the cells below that have reached it by now, and runs those that come later
        return [str(self)]


class Busy(MessageAlone, RuntimeError):
    """Another process is at work there."""


class Unreadable(MessageAlone, ValueError):
    """A file of a run that can't be read; the message names it, and the command that makes it."""


class Stopped(MessageAlone, KeyboardInterrupt):
    """A person has interrupted the work; the message says where it stands and how it resumes."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put `path` into an OSError of the block that names no file: `write` knows none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that becomes `path` when the block ends, and nothing if it fails; a kill leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with naming(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def lock(path: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold `path`, until we die at most; where another process does, say `what` it does and `wait`, or raise Busy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = f"process {file.read() or '(just started)'} {what}"
            if not wait:
                raise Busy(f"{holder}: wait or end it") from None
            print(f"{holder}: waiting for it ({shown(path)})", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
