"""Mixers whose state is a memory that is written by rule: the delta rule, and several memories behind a router."""
