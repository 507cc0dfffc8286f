"""Regions: the box of each value that a patch can change, by one rule an operator family."""
