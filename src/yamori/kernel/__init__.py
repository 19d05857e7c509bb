"""What is known of the guest kernel: discovery, symbols, types, layout, and the Profile they add up to."""
