"""What a user attaches to a solve: events, control inputs and doses."""
