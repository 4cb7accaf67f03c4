"""Mixers around another mixer: both directions of time, both strands of DNA."""
