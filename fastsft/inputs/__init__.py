"""Files, folders and globs -> shards, byte ranges, lines."""
