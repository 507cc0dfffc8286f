"""Helpers shared by all stages: emission of nodes, queries on values and batches, quantised values, shape inference."""
