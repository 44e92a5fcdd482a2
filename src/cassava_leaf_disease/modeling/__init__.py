"""Networks, losses, metrics and checkpoints that describe themselves."""
