"""The cascade that removes a workspace and everything in it.

Doors call `plan` (request, restore, preview) and `report` (what is going on); workers call `engine.run_slice`
and `tending`. Only `ledger` writes the deletion's own rows.
"""
