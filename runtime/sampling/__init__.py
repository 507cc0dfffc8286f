"""Maps from a part of the positions: kriging, drill-down, and tuned plans."""
