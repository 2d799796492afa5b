"""Processes whose start is timed; each imports only what a user of that side would."""
