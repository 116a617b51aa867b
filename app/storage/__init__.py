"""The bytes of filesets, below the ids of their workspace and fileset."""
