"""Normalising: the same outputs from plain operators, one image input, a free batch and known shapes."""
