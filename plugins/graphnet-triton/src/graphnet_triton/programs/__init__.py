"""The programs that run on the GPU, in Triton's language; what launches them lies beside this folder."""
