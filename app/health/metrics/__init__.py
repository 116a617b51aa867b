"""What `/metrics` shows: what is read at each scrape."""
