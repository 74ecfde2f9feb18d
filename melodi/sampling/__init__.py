"""From readings to energy curves."""
