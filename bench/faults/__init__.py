"""The fault campaign: deploys and rollbacks that something happens to."""
