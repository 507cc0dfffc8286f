"""Heat maps: aggregation of scores to pixels, files, and overlays."""
