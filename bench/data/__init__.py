"""What market data costs to read, write and keep, beside other ways to do it."""
