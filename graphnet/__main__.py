"""The command `graphnet`, also as `python -m graphnet`."""

import sys


def main() -> None:
    """Run the command; Ctrl-C ends it with status 130 and no traceback, also while its code is imported."""
    try:
        from graphnet.cli import main as cli

        cli()
    except (KeyboardInterrupt, ImportError) as error:
        if not isinstance(error.__cause__ or error.__context__ or error, KeyboardInterrupt):
            raise
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
