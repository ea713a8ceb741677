"""What a user attaches to a solve: events, control inputs, doses, a steady state to stop at."""
