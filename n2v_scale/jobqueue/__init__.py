"""Workers as jobs of a batch system: their scripts, their states, and who replaces the lost."""
