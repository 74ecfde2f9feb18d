"""How much of a core the books take."""
