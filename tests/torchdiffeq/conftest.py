"""Let the tests of neuralode.torchdiffeq share `both.py`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # in every import mode of pytest
