"""What changes logits before a token is chosen; one file a processor, each declares its kind."""
