"""Rewriting: the baseline graph that outputs cached activations, the incremental graph that reads them, and their files."""
