"""Exchanging nodes: the same outputs but for rounding, from nodes in an order whose regions are smaller."""
