"""Training runs in a child process, from a laptop to several GPUs: the notebook's kernel never holds the GPU.

`launch` writes the notebook's cells tagged `recipe` to `<stage>/train.py` and starts that file, which stays beside what
it made. Several processes are started by `accelerate launch` (`notebook_launcher` forks, which CUDA does not survive).
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import linecache
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.child import LAUNCHED, LOADED_FILE, first_gpu
from finr1.manifest import changed_files, file_sha256, making, read_object, remove
from finr1.models import why_unusable
from finr1.params import STAGES, Params, did_you_mean
from finr1.paths import MessageAlone, Stopped, repository_root, shown
from finr1.progress import EARLY_FILE, LOG_FILE, METRICS_FILE, follow, newest_whole, read_metrics, stopped

if TYPE_CHECKING:
    from finr1.run import Run

PARAMS_FILE, SCRIPT, MODEL_FOLDER = "params.yaml", "train.py", "model"
HUGE_PAGES = "glibc.malloc.hugetlb=1"  # memory comes in larger pieces: a step on a CPU takes a twelfth less time
JOIN_HOURS = 24  # a further node waits so long for the first one
MADE_BY_TRAINING = (MODEL_FOLDER, "model.tmp", "checkpoints", "completions", "tensorboard",
                    METRICS_FILE, EARLY_FILE, LOG_FILE, LOADED_FILE)  # fmt: skip
_NODES = {"NNODES": "--num_machines", "NODE_RANK": "--machine_rank",
          "MASTER_ADDR": "--main_process_ip", "MASTER_PORT": "--main_process_port"}  # fmt: skip


class TrainingFailed(MessageAlone, RuntimeError):
    """The training process died; the message holds its own last error and the end of its log."""


def recipe_script(stage: str, params_class: type[Params], namespace: Mapping[str, Any] | None = None) -> str:
    """The text of `train.py`: the cells tagged `recipe` of the stage's notebook, and the line that trains.

    `namespace` is the kernel's `globals()`: a cell that was changed, run and not saved stands there as it was run.
    """
    path = notebook_file(stage)
    cells = json.loads(path.read_text("utf8"))["cells"]
    recipe = ["".join(cell["source"]) for cell in cells if "recipe" in cell["metadata"].get("tags", [])]
    recipe = [_as_run(source, namespace or {}).strip() for source in recipe]
    about = f'"""The cells tagged `recipe` of {path.name}, as they ran; `python {SCRIPT}` trains this stage."""'
    main = f"""if __name__ == "__main__":
    from finr1.child import child_main
    from finr1.params import {params_class.__name__}

    child_main(make_trainer, {params_class.__name__})"""
    return "\n\n\n".join([about, *recipe, main]) + "\n"


def unknown_rewards(params: Params) -> list[str]:
    """A line for each of `reward_funcs` that is no function of completions in the cells of the recipe, nor TRL's."""
    if not (wanted := getattr(params, "reward_funcs", None)):
        return []
    script = recipe_script(params.stage, type(params))
    known = re.findall(r"^def (\w+)\(completions|^(\w+) = |^from trl\.rewards import (\w+)", script, re.MULTILINE)
    known, told = ["".join(names) for names in known], "no such function in the cells of the recipe"
    return [f"reward_funcs, {name}: {told}{did_you_mean(name, known)}" for name in wanted if name not in known]


def notebook_file(stage: str) -> Path:
    """The notebook of this stage that runs in this kernel, where Jupyter says so; else the one in `notebooks/`."""
    session, title = Path(os.environ.get("JPY_SESSION_NAME", "")), f'"# {stage[:2]} '
    if session.suffix == ".ipynb" and session.is_file() and title in session.read_text("utf8"):
        return session
    return repository_root() / "notebooks" / f"{stage}.ipynb"


def _as_run(source: str, namespace: Mapping[str, Any]) -> str:
    """The cell as the kernel ran it last, found by what it defines; `source` where the kernel has none of it."""
    for node in ast.parse(source).body:
        made = namespace.get(node.name) if isinstance(node, ast.FunctionDef | ast.ClassDef) else None
        code = getattr(made.__init__ if isinstance(made, type) else made, "__code__", None)
        if code is not None and (lines := linecache.getlines(code.co_filename)):
            return "".join(lines)
    run = [text for text in namespace.get("In", ()) if difflib.SequenceMatcher(None, source, text).ratio() > 0.6]
    return run[-1] if run else source


def launch(
    run: Run, namespace: Mapping[str, Any] | None = None, *, reads: Sequence[str] = (),
    on_progress: Callable[[list[dict[str, Any]]], None] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Write `train.py` from the recipe, start it, and wait for it; returns the rows of its `metrics.jsonl`.

    `namespace` is the notebook's `globals()`, see `recipe_script`. Returns at once when `model/` is there; a child that
    was killed before resumes from its last checkpoint. Both hold only for the same recipe, package files and files
    `reads` of the stage folder. `on_progress` gets all rows whenever there are new ones, at most once a second. Raises
    TrainingFailed when the child dies, ParameterError as `Run` does, and Stopped after an interrupt, which ends it.
    """
    run.save_state()  # refuses where another kernel has begun this stage since
    params = run.params
    script = recipe_script(params.stage, type(params), namespace)
    hashes = {SCRIPT: sha256(script.encode()).hexdigest(), **{name: file_sha256(run.dir / name) for name in reads}}
    _drop_outdated(run, hashes)
    (run.dir / SCRIPT).write_text(script, "utf8")
    if (model := run.dir / MODEL_FOLDER).exists():
        if any(model.iterdir()) and (wrong := why_unusable(str(model))):
            raise FileNotFoundError(f"{shown(model)}: {wrong}{making(run.dir, force=True)}")
        print(f"{shown(model)} is complete: no training")
        if not (rows := read_metrics(run.dir)):
            raise FileNotFoundError(f"{shown(run.dir / METRICS_FILE)} is gone{making(run.dir, force=True)}")
        return rows
    newest_whole(run.dir / "checkpoints", drop=True)  # what is dropped is named here, and not in the log alone
    remove(run.dir / "checkpoints" / "start_model")  # 05 merges an adapter there; whether it is whole can't be told
    log = run.dir / LOG_FILE
    start = log.stat().st_size if log.exists() else 0  # a resumed session appends
    with log.open("ab") as file:
        process = subprocess.Popen(
            launcher_argv(run.dir, params.num_processes, params.distributed), stdout=file, stderr=subprocess.STDOUT,
            stdin=subprocess.PIPE,  # closes when this process dies, whatever kills it: the child then ends too
            cwd=repository_root(), env=environment(params.num_processes) | {LAUNCHED: "1"}, start_new_session=True,
        )  # fmt: skip
    with process.stdin:
        try:
            follow(run.dir, lambda: _ended(process), on_progress)
        except BaseException as error:  # an interrupted cell must leave no trainer behind
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, KeyboardInterrupt):
                raise Stopped(stopped(run.dir)) from None
            raise
    if code := process.returncode:
        raise TrainingFailed(_what_happened(params.stage, code, log, start))
    return read_metrics(run.dir)


def launcher_argv(stage_dir: Path, num_processes: int, distributed: str) -> list[str]:
    """The command that trains on this node: plain Python for one process, `accelerate launch` for more."""
    script = str(stage_dir / SCRIPT)
    if num_processes == 1:
        return [sys.executable, script]
    config = repository_root() / "params" / "accelerate" / f"{distributed}.yaml"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    several = os.environ.get("NNODES", "1") != "1"
    if several and (unset := [name for name in _NODES if not os.environ.get(name)]):
        raise RuntimeError(f"NNODES asks for several nodes; not set: {', '.join(unset)} (docs/distributed.md)")
    nodes = [f"{option}={os.environ[name]}" for name, option in _NODES.items()] if several else []
    return [*launcher, "--num_processes", str(num_processes), *nodes, script]


def environment(num_processes: int) -> dict[str, str]:
    """The environment of a trainer, or of the launcher of several."""
    outer = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}  # where they are set, of another launcher
    env = {"GLIBC_TUNABLES": HUGE_PAGES} | {name: value for name, value in os.environ.items() if name not in outer}
    env |= {"CUDA_VISIBLE_DEVICES": first_gpu()} if num_processes == 1 else {}
    return env | {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}  # the stack of a native crash is in the log


def join(options: argparse.Namespace) -> int:
    """On a further node: wait for the first node's trainer, take part in it; returns this node's exit code.

    0 without training when `model/` is there, 1 when no trainer came up, 2 for a wrong folder or environment.
    """
    stage_dir = options.stage_dir.resolve()
    unset, port = [name for name in _NODES if not os.environ.get(name)], os.environ.get("MASTER_PORT", "")
    if unset or not port.isdecimal() or int(port) >= 2**16 or stage_dir.name not in ("04_sft", "05_grpo"):
        wrong = f"{stage_dir}: join takes a folder 04_sft or 05_grpo, and the variables of docs/distributed.md"
        print(f"{wrong}; not set: {', '.join(unset) or 'none'}; MASTER_PORT: {port!r}", file=sys.stderr)
        return 2
    address, ends = (os.environ["MASTER_ADDR"], int(port)), time.monotonic() + 3600 * JOIN_HOURS
    print(f"waiting for the trainer of {stage_dir.name} at {address[0]}:{port}, {JOIN_HOURS} hours at most", flush=True)
    while time.monotonic() < ends:
        with suppress(OSError), socket.create_connection(address, timeout=1):
            break
        if (stage_dir / MODEL_FOLDER).exists():
            print(f"{shown(stage_dir / MODEL_FOLDER)} is complete: no training")
            return 0
        time.sleep(0.2)
    else:
        print(f"no trainer at {address[0]}:{port}: does `python -m finr1 run` run on the first node?", file=sys.stderr)
        return 1
    # Only now: what stood there before the first node started its trainer may be an older run's.
    params = STAGES[stage_dir.name].from_yaml(stage_dir / PARAMS_FILE)
    arguments = launcher_argv(stage_dir, params.num_processes, params.distributed)
    return subprocess.run(arguments, cwd=repository_root(), env=environment(params.num_processes)).returncode


def _drop_outdated(run: Run, hashes: dict[str, str]) -> None:
    """Remove what a training made when its recipe, its data, or the package files that it loaded have changed."""
    before = run.state["launched"] or hashes
    changed = [name for name in hashes if before.get(name) != hashes[name]]
    try:
        changed += changed_files(read_object(run.dir / LOADED_FILE, {}, absent={}))
    except ValueError:
        changed.append(LOADED_FILE)
    if changed:
        run.may_replace(changed)
        print(f"changed: {', '.join(changed)}; training starts afresh")
        for name in MADE_BY_TRAINING:
            remove(run.dir / name)
    run.state["launched"] = hashes
    run.save_state()


def _ended(process: subprocess.Popen) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    return process.returncode is not None


def _what_happened(stage: str, code: int, log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = clean_lines(file.read().decode("utf8", errors="replace"))
    ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    end = "\n".join(f"  {line}" for line in lines[-15:])
    return f"the training of {stage} {ended}{hint}\n{last_error(lines)}\nThe end of {shown(log)}:\n{end}"


def clean_lines(text: str) -> list[str]:
    """Lines of a log without colours, overwritten progress bars, torchrun's rank marks and blank lines."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [re.sub(r"^\[rank\d+\]: ?", "", line.rstrip().rpartition("\r")[2]) for line in text.split("\n")]
    return [line for line in lines if line.strip()]


def last_error(lines: list[str]) -> str:
    """The last line of a log that names an exception, torchrun's own left out; without one, the last line."""
    named = [line for line in lines if re.match(r"(?!torch\.distributed\.elastic)[\w.]*(Error|Exception)(: |$)", line)]
    return (named or lines or ["(it wrote no log)"])[-1]
