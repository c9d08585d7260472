"""Draw episodes. Episode ``i`` is a pure function of ``(pools, shape, seed, i)``: no global random state."""
