"""Train a flow by flow matching."""
