"""Which fastsft this is: the one place that says it."""

__version__ = "0.6.0"
