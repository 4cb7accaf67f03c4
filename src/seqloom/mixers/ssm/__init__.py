"""State-space mixers: linear recurrences that run as long convolutions."""
