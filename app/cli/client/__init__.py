"""How commands reach the routes of the API, by a server or in their own process, and how they print the answers."""
