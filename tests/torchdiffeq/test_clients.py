"""Packages from PyPI that use torchdiffeq run unmodified on this package and give the same numbers.

Each script of clients/ runs in two processes: with torchdiffeq, and after `neuralode.torchdiffeq.install()`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import neuralode.torchdiffeq as ours

CLIENTS = Path(__file__).parent / "clients"
RUN = """
for arguments in json.loads(sys.argv[1]):
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
import torchdiffeq
"""
THEIRS = f"""
import json, runpy, sys
{RUN}
assert torchdiffeq.__name__ == "torchdiffeq"
assert "neuralode" not in sys.modules
"""
OURS = f"""
import json, runpy, sys
import neuralode.torchdiffeq
neuralode.torchdiffeq.install()
{RUN}
assert torchdiffeq is neuralode.torchdiffeq
held = [module for name, module in sys.modules.items() if name.split(".")[0] == "torchdiffeq"]
assert held and all(module.__name__.startswith("neuralode.torchdiffeq") for module in held)
"""

Numbers = dict[str, list[Tensor]]


def both(script: str, folder: Path, *variants: str) -> list[tuple[Numbers, Numbers]]:
    """Run a script with both libraries at the same time, once for each variant, and return what it saves."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["POT_BACKEND_DISABLE_JAX"] = "1"  # POT, a dependency of torchcfm, would import JAX only to detect it
    running, outs = [], []
    for name, library in (("ours", OURS), ("theirs", THEIRS)):
        outs.append([folder / f"{name}-{n}.pt" for n in range(len(variants) or 1)])
        runs = [[str(CLIENTS / script), str(out), *variants[n : n + 1]] for n, out in enumerate(outs[-1])]
        command = [sys.executable, "-c", library, json.dumps(runs)]
        running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
    failures = [(process.communicate(timeout=300)[1], process.returncode) for process in running]
    for errors, code in failures:
        assert code == 0, errors
    found = [(torch.load(mine), torch.load(other)) for mine, other in zip(*outs, strict=True)]
    assert all(mine.keys() == other.keys() for mine, other in found)
    return found


def largest_difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Return the largest difference, relative to the largest element of each tensor if that is above 1."""
    assert [x.shape for x in found] == [x.shape for x in wanted]
    assert all(x.isfinite().all() for x in (*found, *wanted))
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1)) for a, b in zip(found, wanted, strict=True))


def within(found: Numbers, wanted: Numbers, tolerances: dict[str, float]) -> None:
    """Compare all tensors, with the tolerance of the first key that is a prefix of their name."""
    for name, numbers in wanted.items():
        tolerance = next(value for start, value in tolerances.items() if name.startswith(start))
        off = largest_difference(found[name], numbers)
        print(f"{name}: {off:.1e} of {tolerance:.0e}")
        assert off <= tolerance, f"{name}: {off:.1e} apart"


def test_torchcde_solves_and_trains_controlled_equations(tmp_path: Path) -> None:
    [(found, wanted)] = both("cde.py", tmp_path)
    # Coefficients act between two knots only, so their gradient, which is the last, is inaccurate in both libraries.
    inaccurate = [name for name in wanted if name.startswith("dopri5") and "jumps" not in name and "backprop" in name]
    assert len(inaccurate) == 2
    assert (
        largest_difference([found[name].pop() for name in inaccurate], [wanted[name].pop() for name in inaccurate])
        < 3e-3
    )
    within(found, wanted, {"dopri5": 2e-5, "rk4": 1e-12, "training": 1e-2})
    losses = found["training"][0]
    assert losses[-1] < 0.5 * losses[0]


def test_flow_matching_samples_and_computes_likelihoods(tmp_path: Path) -> None:
    [(found, wanted)] = both("matching.py", tmp_path)
    within(found, wanted, {"fixed": 2e-6, "adaptive": 5e-4})


def test_torchcfm_trains_flows_that_odeint_samples(tmp_path: Path) -> None:
    # Neither torchcfm 1.0.7 nor torchdyn 1.0.6 calls torchdiffeq: the former needs it only for its examples, the latter
    # has its own solvers. The calls here are those of torchcfm's examples.
    [(found, wanted)] = both("cfm.py", tmp_path)
    # The network has kinks, for which gradients have errors of 3e-3 at this tolerance in both libraries.
    within(found, wanted, {"training": 0.0, "fixed": 2e-6, "adaptive": 1e-3, "gradients": 1e-2})
    for name in ("ConditionalFlowMatcher", "ExactOptimalTransportConditionalFlowMatcher"):
        [losses] = found[f"training, {name}"]
        assert losses[-10:].mean() < 0.8 * losses[0]


def test_a_spiral_is_learned_by_backpropagation_and_by_the_adjoint(tmp_path: Path) -> None:
    for found, wanted in both("spiral.py", tmp_path, "--no-adjoint", "--adjoint"):
        check_training(found, wanted)


def check_training(found: Numbers, wanted: Numbers) -> None:
    within(found, wanted, {"truth": 1e-4, "losses": 1e-2, "tests": 3e-2, "weights": 2e-2})
    before, after = (torch.stack(found["losses"][part]).mean() for part in (slice(5), slice(-5, None)))
    assert after < 0.8 * before


@pytest.mark.parametrize(
    "options", [None, {"step_t": torch.tensor([0.5])}], ids=["options of the forward solve", "other options"]
)
def test_adjoint_parameters_may_be_used_by_a_graph_built_before_the_solve(options: dict[str, Any] | None) -> None:
    # As with the coefficients of a torchcde path: every evaluation uses the graph from source to rate.
    source = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    rate, t = source * source, torch.tensor([0.0, 1.0], dtype=torch.float64)
    ends = ours.odeint_adjoint(
        lambda t, y: -rate * y, torch.ones_like(source), t, adjoint_params=(source,), method="dopri5",
        adjoint_method="dopri5", adjoint_options=options,
    )  # fmt: skip
    ends[-1].sum().backward()
    assert source.grad is not None
    exact = -2 * source.detach() * torch.exp(-rate.detach())
    torch.testing.assert_close(source.grad, exact, rtol=1e-7, atol=0)


def test_the_examples_of_the_documentation_run() -> None:
    page = (Path(__file__).parents[2] / "docs" / "torchdiffeq.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other tests have imported torchdiffeq
            for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
                exec(compile(textwrap.dedent(block), "docs/torchdiffeq.md", "exec"), names)
        assert names["odeint"] is ours.odeint_adjoint
    finally:
        ours.uninstall()
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(names["by_level"].item(), -1.0)
    torch.testing.assert_close(names["by_rate"].item(), -0.25 * 0.6931471805599453)
    exact = torch.exp(-torch.linspace(0, 3, 100, dtype=torch.float64))[:, None]
    torch.testing.assert_close(names["curve"], exact, rtol=1e-9, atol=0)
    assert names["weight"].grad is not None
    assert names["reached"].isnan().flatten().tolist() == [False] * 4 + [True] * 5
    assert names["middle"].shape == (3, 1)
    assert all(f"`{name}`" in page for name in ours.SOLVERS)
    options = set().union(*(solver.options for solver in ours.SOLVERS.values())) - {"grid_points", "eps", "implicit"}
    assert all(f"`{name}`" in page for name in options)
