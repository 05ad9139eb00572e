"""Measurements beside other people's loaders and on GPUs, for the maintainers."""
