"""What `/metrics` shows: what is read at each scrape, and what the database counts."""
