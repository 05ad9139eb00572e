"""Photos in folders, shards and tables: listed, measured, split, read, decoded whole."""
