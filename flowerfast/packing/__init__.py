"""Photos into shards: read, shrunk where wanted, written as tar files, checked."""
