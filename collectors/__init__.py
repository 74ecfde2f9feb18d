"""Meters: each collector reads one kind of counter or gauge as the hardware gives it."""
