"""Photos as data: manifest, split, plans, rendered flowers."""
