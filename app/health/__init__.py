"""What the product knows of its own parts: heartbeats, checks of what it depends on, metrics."""
