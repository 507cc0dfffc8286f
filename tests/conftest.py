"""Makes ``models``, which is not installed, importable: last in the path, so that an installed kcompiler comes first."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))
