"""Discover the tasks: every folder in `neuralode.tasks` that has a ``command.py``."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

import neuralode.tasks
from neuralode.tasks.command import TaskCommands
from neuralode.training.run import Run


def task_commands() -> Mapping[str, TaskCommands]:
    """Return the commands of each task by the name of its folder.

    Examples
    --------
    >>> sorted(task_commands()["images"].commands)
    ['train digits', 'train fashion-mnist', 'train mnist']
    """
    modules = sorted(module.name for module in pkgutil.iter_modules(neuralode.tasks.__path__) if module.ispkg)
    names = {folder: f"neuralode.tasks.{folder}.command" for folder in modules}
    return {folder: import_module(name).COMMANDS for folder, name in names.items() if find_spec(name)}


def task_of(run: Run) -> TaskCommands | None:
    """Return the commands of the task that made a run, or None if no task did."""
    name = run.config.get("task")
    return next((task for task in task_commands().values() if name in task.run_tasks), None)
