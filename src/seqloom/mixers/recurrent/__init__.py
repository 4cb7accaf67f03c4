"""Gated recurrent networks: one nonlinear update a step."""
