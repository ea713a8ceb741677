"""The scripts in this folder are run by test_clients.py, each in a process of its own; they are no tests."""

collect_ignore_glob = ["*.py"]
