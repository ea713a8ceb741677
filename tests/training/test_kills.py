"""The kill test: SIGKILL at twenty random moments over one training, and then the weights of an uninterrupted one.

By its own command, since it takes minutes: ``pytest -m slow tests/training/test_kills.py``. ``NEURALODE_KILLS_SEED`` in
the environment chooses other moments.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from neuralode.training.atomic_write import PARTIAL
from neuralode.training.checkpoints import Checkpoints

KILLS = 20
PATIENCE = 300.0  # seconds within which a process must come to the moment it is killed at
ASKED = ["--epochs", "4", "--batch-size", "32", "--rtol", "0.1", "--accelerator", "cpu", "--checkpoint-every", "1"]


def started(*words: object) -> subprocess.Popen:
    command = [sys.executable, "-c", "from neuralode.cli import app; app()", "train", "digits", *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def begun(*words: object) -> subprocess.Popen:
    return started(*ASKED, *words)


def step(folder: Path) -> int:
    """Of the newest checkpoint."""
    files = Checkpoints(folder / "checkpoints").files()
    return int(files[0].name.split("-")[1]) if files else 0


def wait_until(process: subprocess.Popen, come) -> None:
    until = time.monotonic() + PATIENCE
    while not come():
        assert process.poll() is None, f"ended before it could be killed: {process.communicate()[0]}"
        assert time.monotonic() < until
        time.sleep(0.0005)


def kill(process: subprocess.Popen, folder: Path, when: str, moments: random.Random) -> None:
    """Let a process come to a moment, and kill it there."""
    before = step(folder)
    if when == "at the start":  # modules are loaded, or the folder is made, or the first step is taken
        time.sleep(moments.uniform(0.0, 6.0))
    else:
        ahead = moments.randint(1, 8)  # so that the moments lie all over the training
        wait_until(process, lambda: step(folder) >= before + ahead)
        if when == "while it writes":
            wait_until(process, lambda: any((folder / "checkpoints").glob(f"*{PARTIAL}")))
        else:
            time.sleep(moments.uniform(0.0, 0.2))
    process.kill()
    process.wait()
    process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL here")
def test_twenty_kills_and_then_the_same_weights(tmp_path):
    moments = random.Random(int(os.environ.get("NEURALODE_KILLS_SEED", "0")))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    told, _ = begun("--out", whole).communicate()
    weights = (whole / "weights.safetensors").read_bytes()

    kinds = moments.sample(["at the start"] * 4 + ["while it writes"] * 6 + ["at any moment"] * 10, KILLS)
    where = []
    for when in kinds:
        resumable = (cut / "config.json").is_file()
        process = started("--resume", cut) if resumable else begun("--out", cut)
        kill(process, cut, when, moments)
        where.append((when, step(cut), len(list(cut.rglob(f"*{PARTIAL}")))))
    last = started("--resume", cut) if (cut / "config.json").is_file() else begun("--out", cut)
    told, _ = last.communicate()
    print(where)
    assert last.returncode == 0, told
    assert len(where) == KILLS
    assert Counter(kinds) == {"at the start": 4, "while it writes": 6, "at any moment": 10}
    assert (cut / "weights.safetensors").read_bytes() == weights
    figures = [[line.split(",")[2:] for line in (run / "metrics.csv").read_text().splitlines()] for run in (whole, cut)]
    assert figures[0] == figures[1]
