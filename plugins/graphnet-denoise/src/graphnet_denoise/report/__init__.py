"""A training run, or a folder of images, as one HTML page: in a file, or served while it changes.

run        log.jsonl -> Run
examples   image files, and the images of a run's validation, in their own numbers
pictures   an image before and after -> PNG images and numbers
network    a model -> its layers with their time and memory
drawing    a run -> all of the above
page       all of it -> the page's data -> HTML; web/ has the one script that draws it
live       what a page shows while a run trains, or of a folder
serving    the server, for this machine alone
"""
