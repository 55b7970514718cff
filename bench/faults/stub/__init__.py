"""Sources of the stand-in that a campaign deploys instead of the dashboard."""
