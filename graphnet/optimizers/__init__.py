"""Built-in optimizers beside those of graphnet.optim."""
