"""`planexec`: build, load and time a network with the options of giexec and trtexec."""
