"""Heat maps: scores of positions as pixels, files and pictures."""
