"""Networks and blocks that several priors share."""
