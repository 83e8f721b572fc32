"""Registration of a rig: from pictures of its cameras to the homographies between them."""
