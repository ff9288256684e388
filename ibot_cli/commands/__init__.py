"""The subcommands of `ibot`, one file each."""
