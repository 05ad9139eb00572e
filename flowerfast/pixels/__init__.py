"""Plans to pixels on the CPU: a source gives photos, an executor fills rows of a batch."""
