"""``python -m nlpmeta`` is the ``nlpmeta`` command."""

from nlpmeta.cli import entry

if __name__ == "__main__":
    entry()
