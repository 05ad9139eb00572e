"""Photos in folders and shards: listed, measured, split, read, decoded whole."""
