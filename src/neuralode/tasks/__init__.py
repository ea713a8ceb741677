"""The tasks of the command line, one folder each; `neuralode.tasks.base.Task` is what a folder must provide.

To add a task, add a folder. Only ``command.py`` is required, which `neuralode.tasks.registry` discovers; the others are
a convention.

::

    NAME/config.py     dataclass of the options, with defaults; imports nothing heavy, so that --help is fast
    NAME/data.py       load and split the data; data sets that a task offers are listed here
    NAME/module.py     Lightning module
    NAME/metrics.py    evaluation
    NAME/plots.py      figures
    NAME/run.py        the task itself, and what can be done with its runs
    NAME/command.py    its commands
"""
