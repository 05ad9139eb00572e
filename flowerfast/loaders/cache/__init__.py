"""Decoded photos that are kept: in memory, on the GPU, or in a file; and which of these."""
