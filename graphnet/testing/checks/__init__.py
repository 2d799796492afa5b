"""The checks of the conformance kit, one family a file."""
