"""Public data sets: downloaded, checked and unpacked; there whole, or not at all."""
