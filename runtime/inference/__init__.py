"""Inference: sessions, full inference, and the engine that evaluates batches of positions."""
