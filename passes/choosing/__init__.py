"""Choosing: the predicted time of each lowering of each node, the cheapest selection, the layouts, and the report."""
