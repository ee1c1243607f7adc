"""The door to the software: its command line."""
