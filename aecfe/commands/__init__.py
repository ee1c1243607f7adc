"""The commands of `aecfe`: each file holds what its commands take and what they do."""
