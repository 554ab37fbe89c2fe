"""Rules that others published or that anyone would try first, so that relaywatch's figures stand beside theirs."""
