"""Questions to a dashboard at an address: one that was deployed, or one of our own."""
