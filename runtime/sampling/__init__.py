"""Maps from part of the positions: a random field, drill-down, tuned plans."""
