"""What must be true of a booted machine. Uses lab, boot and phase's public API."""
