"""Floor 12: the front door in Python: inspect, fit, compare, and the one class for what was fitted."""
