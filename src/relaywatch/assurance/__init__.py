"""What could be seen at all: coverage, provable and disprovable, blind spots, drills."""
