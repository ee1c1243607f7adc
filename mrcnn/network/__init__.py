"""What the detector's networks are made of."""
