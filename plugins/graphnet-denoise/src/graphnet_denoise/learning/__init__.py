"""Learning: a denoiser from one's own noisy images, without a clean image and without settings.

frames -> arrangement (what belongs together) -> measure (the noise) -> choice -> recipe (the training file)
-> training; scenes are the data sets, quality says how good a model is. own_images has the stages in order.
"""
