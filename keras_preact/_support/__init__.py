"""What every wing stands on, and no wing's own: checks, files written whole or not at all, drawing, settings."""
