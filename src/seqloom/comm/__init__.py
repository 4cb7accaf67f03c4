"""Floor 1: collectives with a byte counter; one process is a world too."""
