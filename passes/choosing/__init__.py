"""Choosing: what each lowering of each node is predicted to take, the cheapest of them, and the report."""
