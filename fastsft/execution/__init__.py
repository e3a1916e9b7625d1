"""Worker processes: forked ones, joblib's backends, signals, memory."""
