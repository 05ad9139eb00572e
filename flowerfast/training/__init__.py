"""Fitting a classifier to photos, and what it leaves: weights, metrics, a report; then its use."""
