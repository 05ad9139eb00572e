"""Fine-tune an image classifier on a folder of JPEGs without waiting for the data."""

__version__ = "0.1.0"
