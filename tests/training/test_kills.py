"""Kill a training with SIGKILL at twenty random times, and compare its weights with those of an uninterrupted one.

This takes minutes and is not run by default: ``pytest -m slow tests/training/test_kills.py``. The environment variable
``NEURALODE_KILLS_SEED`` selects other times.
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
PATIENCE = 300.0  # seconds within which a process must reach the time of its kill
ASKED = ["--epochs", "4", "--batch-size", "32", "--rtol", "0.1", "--accelerator", "cpu", "--checkpoint-every", "1"]


def started(*words: object) -> subprocess.Popen:
    command = [sys.executable, "-c", "from neuralode.cli import app; app()", "train", "digits", *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def begun(*words: object) -> subprocess.Popen:
    return started(*ASKED, *words)


def step(folder: Path) -> int:
    """Return the step of the newest checkpoint."""
    files = Checkpoints(folder / "checkpoints").files()
    return int(files[0].name.split("-")[1]) if files else 0


def wait_until(process: subprocess.Popen, come) -> None:
    until = time.monotonic() + PATIENCE
    while not come():
        assert process.poll() is None, f"ended before it could be killed: {process.communicate()[0]}"
        assert time.monotonic() < until
        time.sleep(0.0005)


def kill(process: subprocess.Popen, folder: Path, when: str, moments: random.Random) -> None:
    """Wait for the time given by ``when``, and kill the process."""
    before = step(folder)
    if when == "at the start":  # while modules load, the folder is created, or the first step is taken
        time.sleep(moments.uniform(0.0, 6.0))
    else:
        ahead = moments.randint(1, 8)  # kills are spread over the training
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
def test_twenty_kills_give_the_same_weights(tmp_path):
    moments = random.Random(int(os.environ.get("NEURALODE_KILLS_SEED", "0")))
    uninterrupted, interrupted = tmp_path / "whole", tmp_path / "cut"
    output, _ = begun("--out", uninterrupted).communicate()
    weights = (uninterrupted / "weights.safetensors").read_bytes()

    kinds = moments.sample(["at the start"] * 4 + ["while it writes"] * 6 + ["at any moment"] * 10, KILLS)
    where = []
    for when in kinds:
        resumable = (interrupted / "config.json").is_file()
        process = started("--resume", interrupted) if resumable else begun("--out", interrupted)
        kill(process, interrupted, when, moments)
        where.append((when, step(interrupted), len(list(interrupted.rglob(f"*{PARTIAL}")))))
    last = started("--resume", interrupted) if (interrupted / "config.json").is_file() else begun("--out", interrupted)
    output, _ = last.communicate()
    print(where)
    assert last.returncode == 0, output
    assert len(where) == KILLS
    assert Counter(kinds) == {"at the start": 4, "while it writes": 6, "at any moment": 10}
    assert (interrupted / "weights.safetensors").read_bytes() == weights
    tables = [(run / "metrics.csv").read_text().splitlines() for run in (uninterrupted, interrupted)]
    metrics = [[line.split(",")[2:] for line in table] for table in tables]
    assert metrics[0] == metrics[1]
