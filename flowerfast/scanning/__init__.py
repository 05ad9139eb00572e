"""Looking photos over before training: damage, duplicates, leaks, likely label errors."""
