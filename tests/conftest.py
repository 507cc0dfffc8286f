"""Shared fixtures and the one way tests compile."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # tests/networks.py, for all folders of tests
