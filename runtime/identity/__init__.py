"""From crops to identities: embed, decide, keep, tell."""
