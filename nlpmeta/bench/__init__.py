"""Our methods and other packages side by side: the same supports, the same queries, the same encoder weights."""
