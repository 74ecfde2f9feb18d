"""The composition root: opens, wires, runs, closes."""
