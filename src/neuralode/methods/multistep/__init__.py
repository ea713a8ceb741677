"""Linear multistep methods."""
