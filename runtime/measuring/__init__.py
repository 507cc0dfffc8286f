"""Measuring compiled models: exactness, speed, memory."""
