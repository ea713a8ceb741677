"""What every test shares."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))  # tests import `problems` and `fields` whatever the import mode

# The same examples in every run: what is merged does not hang on a draw. `--hypothesis-profile=default` draws others.
settings.register_profile("same", derandomize=True, database=None)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
