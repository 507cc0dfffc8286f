"""Emission of index arithmetic: origins and extents of regions, and indices for gathers from cached and updated activations."""
