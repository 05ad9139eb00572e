"""The rows of `benchmarks/gpu_acceptance.py`: what must hold before the GPU path may be trusted."""
