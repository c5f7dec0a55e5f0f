"""Jobs in, timings out: on this machine, on boards over links, or through bundles."""
