"""How exact a plan is: layer by layer, on labelled data, and which layers matter."""
