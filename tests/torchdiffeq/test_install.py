"""`install` makes ``import torchdiffeq`` load this package, and `uninstall` undoes it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from importlib import import_module

import pytest
import torch
from both import ours, theirs


@pytest.fixture
def installed() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other tests have imported torchdiffeq
        ours.install()
    yield
    ours.uninstall()


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.usefixtures("installed")
def test_an_import_loads_this_package() -> None:
    assert import_module("torchdiffeq") is ours
    assert import_module("torchdiffeq").odeint is ours.odeint


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("torchdiffeq", "odeint odeint_adjoint odeint_event odeint_dense __version__"),
        ("torchdiffeq._impl", "odeint odeint_adjoint odeint_event odeint_dense"),
        ("torchdiffeq._impl.odeint", "SOLVERS odeint odeint_event odeint_dense"),
        ("torchdiffeq._impl.adjoint", "odeint_adjoint find_parameters OdeintAdjointMethod"),
        ("torchdiffeq._impl.misc", "Perturb _check_inputs _flat_to_shape _rms_norm _mixed_norm _linf_norm _zero_norm"),
        ("torchdiffeq._impl.solvers", "FixedGridODESolver"),
    ],
)
def test_private_names_that_other_packages_import_exist(module: str, names: str) -> None:
    found = import_module(module)
    assert found.__name__.startswith("neuralode.")
    for name in names.split():
        assert hasattr(found, name), name


@pytest.mark.usefixtures("installed")
def test_both_forms_of_import_work() -> None:
    namespace: dict = {}
    code = """
        import torchdiffeq
        import torchdiffeq._impl.odeint as inner
        from torchdiffeq import odeint
        from torchdiffeq._impl.odeint import SOLVERS
        from torchdiffeq._impl import odeint_adjoint
        same = torchdiffeq._impl.odeint is odeint
    """
    exec(textwrap.dedent(code), namespace)
    assert namespace["inner"] is namespace["odeint"] is ours.odeint  # as in torchdiffeq, the function hides the module
    assert namespace["same"]
    assert namespace["SOLVERS"] is ours.SOLVERS


def test_uninstall_restores_torchdiffeq() -> None:
    with pytest.warns(UserWarning, match="torchdiffeq was imported before"):
        ours.install()
    assert sys.modules["torchdiffeq"] is ours
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ours.install() is ours  # a second time changes nothing
    ours.uninstall()
    assert import_module("torchdiffeq") is theirs
    assert import_module("torchdiffeq._impl.odeint").SOLVERS is not ours.SOLVERS
    ours.uninstall()
    assert import_module("torchdiffeq") is theirs


def test_code_written_for_torchdiffeq_runs_without_torchdiffeq() -> None:
    answer = run("""
        import sys
        sys.modules["torchdiffeq"] = None  # as if it were not installed
        import neuralode.torchdiffeq
        del sys.modules["torchdiffeq"]
        neuralode.torchdiffeq.install()

        import torch
        from torchdiffeq import odeint_adjoint as odeint

        class Func(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.net = torch.nn.Linear(2, 2)
            def forward(self, t, y):
                return self.net(y ** 3)

        func = Func()
        optimizer = torch.optim.RMSprop(func.parameters(), lr=1e-3)
        t = torch.linspace(0.0, 1.0, 10)
        before = None
        for step in range(3):
            optimizer.zero_grad()
            loss = odeint(func, torch.tensor([[0.5, 0.1]]), t, method="dopri5").abs().mean()
            before = before or loss.item()
            loss.backward()
            optimizer.step()
        print(odeint.__module__, loss.item() < before, sys.modules["torchdiffeq"].__version__)
    """)
    assert answer == "neuralode.torchdiffeq.adjoint True 0.2.5"


def test_the_version_is_that_of_torchdiffeqs_interface() -> None:
    assert tuple(int(part) for part in ours.__version__.split(".")) >= (0, 2, 5)
    assert ours.__version__ == theirs.__version__


def test_signatures_are_the_same() -> None:
    import inspect

    for name in ("odeint", "odeint_adjoint", "odeint_event", "odeint_dense"):
        mine, other = (inspect.signature(getattr(library, name)).parameters for library in (ours, theirs))
        assert list(mine) == list(other)
        for parameter in other.values():
            assert mine[parameter.name].kind == parameter.kind, (name, parameter.name)
            if name != "odeint_event" or parameter.name != "odeint_interface":
                assert mine[parameter.name].default == parameter.default


def test_all_method_names_are_registered() -> None:
    head = "tsit5 implicit_euler implicit_midpoint trapezoid radauIIA3 gl4 radauIIA5 gl6 sdirk2 trbdf2"
    released = import_module("torchdiffeq._impl.odeint").SOLVERS
    assert set(ours.SOLVERS) == {*released, *head.split()}
    assert len(ours.SOLVERS) == 24
    for name, solver in released.items():
        assert ours.SOLVERS[name].title == solver.__name__
        assert ours.SOLVERS[name].valid_callbacks() == solver.valid_callbacks()
    assert torch.is_tensor(ours.odeint(lambda t, y: -y, torch.ones(2), torch.tensor([0.0, 1.0])))
