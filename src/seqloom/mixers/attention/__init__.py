"""Mixers in which positions look at each other: softmax attention and its linear relatives."""
