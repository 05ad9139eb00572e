"""Plans to pixels: executors that fill rows of a batch on the CPU, and the same steps on the GPU."""
