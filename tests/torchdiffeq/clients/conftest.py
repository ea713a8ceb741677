"""Exclude the scripts of this folder from test collection; test_clients.py runs them in separate processes."""

collect_ignore_glob = ["*.py"]
