"""How fast the training step of a configuration is on this machine."""
