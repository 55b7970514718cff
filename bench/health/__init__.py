"""What health and metrics cost."""
