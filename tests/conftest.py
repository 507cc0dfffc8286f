"""Makes ``models``, which is not installed, importable: last in the path, so that an installed kcompiler comes first."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.append(str(Path(__file__).parents[1]))
settings.register_profile("whatever the time", deadline=None)  # no test asserts how long it takes
settings.load_profile("whatever the time")
