"""napari-graphnet: denoise images in napari. napari.yaml lists what napari calls."""
