"""MELODI tells what each prompt cost in joules."""

__version__ = "0.1.0"
