"""What gpu_speed.py measures on a machine with an NVIDIA GPU: docs/gpu-speed.md."""
