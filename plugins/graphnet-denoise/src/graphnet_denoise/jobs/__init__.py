"""Jobs: many images from file to file."""
