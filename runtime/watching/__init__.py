"""One rig from a triplet to its tracks and the crops worth keeping."""
