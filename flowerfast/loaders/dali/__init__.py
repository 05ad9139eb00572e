"""Plans to pixels by NVIDIA DALI: on the GPU, or by the same graph on the CPU."""
