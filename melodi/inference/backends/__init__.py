"""What is peculiar to each kind of backend."""
