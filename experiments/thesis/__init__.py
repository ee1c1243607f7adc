"""Tables and figures of the thesis."""
