"""Which checkpoint a training goes on from: the newest that is as it was written, with the logs up to it."""

from __future__ import annotations

import shutil
from pathlib import Path

from finr1.manifest import read_object, remove, sampled_sha256, write_json
from finr1.paths import shown
from finr1.progress import EARLY_FILE, METRICS_FILE

LISTED = "files.json"  # written last: a kill leaves a checkpoint without it


def seal(checkpoint: Path) -> None:
    """Put the logs of its stage into a checkpoint, and a list of what it holds."""
    for log in (METRICS_FILE, EARLY_FILE):
        rewind(checkpoint / log, checkpoint.parent.parent)
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != LISTED]
    write_json(checkpoint / LISTED, {str(path.relative_to(checkpoint)): sampled_sha256(path) for path in files})


def rewind(log: Path, checkpoint: Path) -> None:
    """Make a log what it was when `checkpoint` was written; without one it ends."""
    remove(log)
    if (checkpoint / log.name).exists():
        shutil.copy(checkpoint / log.name, log)


def newest_whole(folder: Path, drop: bool = False) -> str | None:
    """The newest checkpoint below `folder` that is as it was written; `drop` removes and names each newer one."""
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdecimal()]
    for checkpoint in sorted(numbered, key=lambda path: -int(path.name.partition("-")[2])):
        if (broken := _broken_file(checkpoint)) is None:
            return str(checkpoint)
        if drop:
            print(f"{shown(checkpoint)} is dropped: {broken} is missing or not as it was written", flush=True)
            remove(checkpoint)
    return None


def _broken_file(checkpoint: Path) -> str | None:
    name = LISTED
    try:
        for name, sha256 in read_object(checkpoint / LISTED, {}).items():
            if sampled_sha256(checkpoint / name) != sha256:
                return name
        name = "trainer_state.json"
        best = read_object(checkpoint / name, {})["best_model_checkpoint"]
    except (OSError, ValueError, KeyError):
        return name
    best = checkpoint.with_name(Path(best).name) if best else checkpoint  # `load_best_model_at_end` will load it
    return _broken_file(best) if best != checkpoint else None
