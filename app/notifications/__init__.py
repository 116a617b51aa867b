"""Notifications of what becomes of deletions, by webhooks and e-mail: who gets them, and how they are sent.

Their deliveries are inserted with the events, by `app.cleanup.history`.
"""
