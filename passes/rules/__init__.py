"""Region rules by operator family. Importing this enters all of them into the table."""

from kcompiler.passes.rules import cells, channels, quantised, resampling, windows
from kcompiler.passes.rules.table import RULES, NoRule, Region, apply_rule

assert all((cells, channels, quantised, resampling, windows)), "importing a family enters its rules into the table"

__all__ = ["RULES", "NoRule", "Region", "apply_rule"]
