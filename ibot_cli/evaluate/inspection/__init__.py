"""What a weights file is, and whether it is any good: measured signs and a verdict in words."""
