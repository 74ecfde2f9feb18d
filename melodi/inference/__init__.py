"""Sending prompts, or watching them pass, and what is seen of each."""
