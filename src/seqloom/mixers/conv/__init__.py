"""Long convolutions whose kernels are written by few parameters."""
