"""Fleets of phones that never were: canonical tables of any size, seeded and exact, with relays whose place is known."""
