"""The method: torch and timm, plain arguments in, tensors out. No configuration, no printing, no files."""
