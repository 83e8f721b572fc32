"""What a person looks at: mosaic, sheet of matches, video."""
