"""The pass-through proxy in front of a backend."""
