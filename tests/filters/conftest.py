from tests.filters.gadgets import gadgets

__all__ = ["gadgets"]
