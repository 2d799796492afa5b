"""The programs that run on the GPU, in Triton's language; the modules beside this folder launch them."""
