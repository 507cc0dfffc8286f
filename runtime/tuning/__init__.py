"""Tuning: finds the cheapest sampling plan that reaches a quality."""
