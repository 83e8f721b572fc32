"""A look inside a trained network: what it looks at, how it ranks, how its features lie."""
