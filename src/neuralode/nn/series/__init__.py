"""Models of irregularly sampled series."""
