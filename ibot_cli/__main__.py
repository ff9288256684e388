"""`python -m ibot_cli` is the same as `ibot`."""

from ibot_cli.cli import main

if __name__ == "__main__":
    main()
