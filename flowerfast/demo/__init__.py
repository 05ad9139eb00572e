"""Rendered flowers, for machines that have no photos at hand."""
