"""What becomes of which sample, and when: plans as arrays, without a pixel."""
