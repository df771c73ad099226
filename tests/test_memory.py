"""What a notebook loads to measure or to answer, its kernel gives back."""

from __future__ import annotations

import contextlib
import weakref
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import torch

from finr1 import models

MIB = 2**20


def test_the_models_that_are_measured_are_gone_afterwards(monkeypatch):
    """The cell that measures this machine's speed, with stand-ins of 256 MiB: a kernel may stay open for days."""
    made, most = [], []

    def load_model(path: str, dtype: str) -> torch.nn.Module:
        model = torch.nn.Linear(8192, 8192, bias=False)
        model.generate = lambda ids, **settings: ids
        made.append(weakref.ref(model))
        most.append(psutil.Process().memory_info().rss - before)
        return model

    monkeypatch.setattr(models, "load_model", load_model)
    monkeypatch.setattr(models, "resolve_model", lambda *_: "stand-in")
    notebooks = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
    cells = [cell.source for path in notebooks for cell in nbformat.read(path, 4).cells]
    [imports] = [source for source in cells if "import" in source and "clear_device_cache\nfrom IPython" in source
                 and "import partial" in source]  # fmt: skip
    [measured] = [source for source in cells if 'rates["train"] =' in source]
    names = {"run": SimpleNamespace(phase=lambda _: contextlib.nullcontext()), "params": SimpleNamespace(seed=1)}
    exec(imports, names)
    names |= {"tokens_per_second": lambda work, tokens: tokens, "train_step": lambda model: None}
    before = psutil.Process().memory_info().rss
    exec(measured, names)
    assert len(made) == 2 and most[1] < 400 * MIB  # the first has gone when the second comes
    assert [model() for model in made] == [None, None]
    assert psutil.Process().memory_info().rss - before < 100 * MIB
