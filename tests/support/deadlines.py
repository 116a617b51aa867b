"""How long tests wait for what must happen. No test fails because a machine is slow."""

DEADLINE_S = 150.0
"""At least five times what anything takes that tests wait for; a deletion may take twice as long."""
