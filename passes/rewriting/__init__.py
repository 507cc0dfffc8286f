"""Rewriting: the baseline graph that leaves cached activations, the incremental graph that reads them, and their files."""
