"""Regions: the box of each feature map that a patch can change, by one rule per operator family."""
