"""The commands that this plugin adds to `graphnet`, one file each; loaded when one is called."""
