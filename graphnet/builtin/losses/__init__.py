"""The built-in losses: differences by pixel, masked ones, and structural similarity."""
