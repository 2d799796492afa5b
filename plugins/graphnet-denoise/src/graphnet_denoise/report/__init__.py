"""A training run as one HTML file: curves, images before and after, what was removed, settings, versions."""
