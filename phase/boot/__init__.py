"""What runs in the seed: find, verify, fetch, hand over. Never imports what the seed does not need."""
