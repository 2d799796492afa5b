"""graphnet: layers that state their own forward and backward, compiled into one plan."""
