"""The board's end of the link: serves hosts, lets child processes do what may go wrong."""
