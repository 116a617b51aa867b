"""The operators' console: pages for browsers, on the same functions and permissions as the API."""
