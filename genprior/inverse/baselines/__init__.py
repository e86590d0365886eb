"""Classical methods without a generative prior, one file each."""
