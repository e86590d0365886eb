"""Classical reconstruction methods without a generative prior; one method per file."""
