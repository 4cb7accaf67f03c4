"""Floor 0: the values and protocols that every other floor speaks."""
