"""What `/metrics` shows: what is read at each scrape, what the database counts, and requests."""
