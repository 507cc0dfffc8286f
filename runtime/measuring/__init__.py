"""Measurement of compiled models: exactness, speed, memory."""
