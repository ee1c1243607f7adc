"""Files: whole or absent, one writer at a time, and an error that names them."""
