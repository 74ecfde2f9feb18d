"""Arithmetic of energy: pure functions and values, no I/O."""
