"""What reaches the part that decides: instants from clips, from live cameras, or from a tape."""
