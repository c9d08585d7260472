"""Published protocols, paired comparisons, and what ``nlpmeta adapt`` measures."""
