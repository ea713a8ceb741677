"""What every test shares."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # tests import `problems` and `fields` whatever the import mode


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
