"""The built-in optimizers: SGD, Adam, AdamW and Muon."""
