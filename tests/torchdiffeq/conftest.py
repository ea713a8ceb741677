"""What the tests of the drop-in face share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # tests import `both` whatever the import mode
