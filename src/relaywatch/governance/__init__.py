"""What a site decides about relays: documented exceptions, and the first steps after a finding."""
