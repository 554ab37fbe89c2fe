"""What relaying looks like: pure functions over columns. No files, no clock, no network, no global state."""
