"""Mixers that are two kinds in one layer."""
