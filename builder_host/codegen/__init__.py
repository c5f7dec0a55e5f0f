"""Source and machine code: loop nests, printers, templates, toolchains, artifact store."""
