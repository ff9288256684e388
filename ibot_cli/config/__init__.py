"""Configuration: schema, loading, presets. Pure Python: no torch, no typer."""
