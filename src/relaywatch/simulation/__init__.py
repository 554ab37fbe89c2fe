"""Fleets of phones that never were: canonical tables of any size, seeded and exact, and it is known who relays."""
