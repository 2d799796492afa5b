"""The command `graphnet`, also as `python -m graphnet`."""

import sys


def main() -> None:
    """Run the command; Ctrl-C ends it with status 130 and no traceback, also while its code is imported."""
    try:
        from graphnet.cli import main as cli

        cli()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
