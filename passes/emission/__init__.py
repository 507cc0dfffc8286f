"""Emitting index arithmetic: where regions lie, and how they are read from cached and updated values."""
