"""Repeatable measurements of the product; never timed tests."""
