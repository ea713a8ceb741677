"""Deprecated paths: use `neuralode.training`, `neuralode.tasks` and `neuralode.nn.flows.coupling`."""
