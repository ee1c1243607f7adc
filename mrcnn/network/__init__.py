"""Parts of the detector's networks, and their assembly."""
