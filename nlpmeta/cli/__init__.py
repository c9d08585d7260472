"""The ``nlpmeta`` command: one file a subcommand, wired together in ``app``."""
