"""What a kill costs: lost records, doubled records, time to recover."""
