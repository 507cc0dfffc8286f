"""Fuzzers of what strangers hand over: ``python -m tests.fuzz KIND --seed S --count N [--jobs J]``, from the root of the repository.

A kind of input (``kinds.py``) is a module with ``cases(seed)``, an iterator of named files, and ``attempt(folder)``, which reads
them as a user would. ``runner.py`` runs each case in a child with limits on time and memory.
"""
