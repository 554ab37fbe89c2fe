"""Where detection runs. Engines feed and schedule; what a relay looks like is detection's alone."""
