"""The commands that this plugin adds to `graphnet`, one file each, which is imported when it is called."""
