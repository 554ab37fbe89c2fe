"""The relay range: real relays and ordinary programs in network namespaces, captured and labelled."""
