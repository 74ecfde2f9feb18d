"""Records and accounts in a database."""
