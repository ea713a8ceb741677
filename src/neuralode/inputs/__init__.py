"""What a user attaches to a solve: events (`Event`), control inputs (`interpolate`) and doses (`Dose`)."""
