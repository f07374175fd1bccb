"""What would become of a frame, and why: built, run on the side, and explained."""
