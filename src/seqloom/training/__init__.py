"""Floor 8: one training run as a value, and the only loop."""
