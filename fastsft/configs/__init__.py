"""The files with which trainers are configured, one module for each kind."""
