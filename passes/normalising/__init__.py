"""Normalisation passes: the same outputs from standard operators, with one image input, a free batch axis and known shapes."""
