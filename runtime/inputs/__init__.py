"""Inputs of an explanation: pictures and their preprocessing, images, fills, positions."""
