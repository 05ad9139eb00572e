"""The CPU executor's inner loops, compiled by numba, without the interpreter lock."""
