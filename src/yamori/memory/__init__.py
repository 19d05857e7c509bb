"""Physical memory of a guest: regions, positioned reads, image files."""
