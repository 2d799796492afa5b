"""`python -m graphnet` is the command `graphnet`."""

from graphnet.cli import main

main()
