"""What users are promised about damage, kills and full disks, tried thousands of times.

    python -m benchmarks.torture [--quick] [--only NAME[,NAME]] [--out FILE]

A promise is a `Trial`: a function that tries it for a range of numbers and says which failed. Every number
is a case that follows from it alone, so that a failure is tried again by its number and a run goes on where
another stopped.
"""
