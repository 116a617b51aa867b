"""The cascade that removes a workspace and everything in it.

The API and the command line call `requests`, `operations`, `preview` and `report`; workers call `engine.run_slice`, the
maintenance round calls `sweep`. Only `ledger` and `lease` write the deletion's own row.
"""
