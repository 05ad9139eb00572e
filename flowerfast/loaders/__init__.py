"""Batches on the training device: `Loader`, its backends, and the caches of decoded photos."""
