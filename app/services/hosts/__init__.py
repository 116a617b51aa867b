"""Hosts with a runtime worker, as the database knows them: what is on them, and what becomes of it without them."""
