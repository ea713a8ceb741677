"""Output on a terminal: tables, messages and the progress of a training."""
