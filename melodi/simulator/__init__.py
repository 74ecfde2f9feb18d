"""A simulated inference server whose true energy is known."""
