"""The layouts of weights files and folders, each read into the names of `ibot_cli.core`."""
