"""One HTML page of an output, which needs nothing from elsewhere."""
