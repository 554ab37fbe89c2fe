"""How well relaywatch does on labelled traffic, beside rules that others use."""
