"""The phase command."""
