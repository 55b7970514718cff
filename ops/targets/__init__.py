"""How an environment is reached: one module per kind of target."""
