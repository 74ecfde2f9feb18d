"""What it costs to watch the processes of backends."""
