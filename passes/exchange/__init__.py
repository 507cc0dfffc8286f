"""Exchange passes: they reorder linear nodes so that regions are smaller. Outputs are the same except for rounding."""
