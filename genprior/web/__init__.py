"""Web page of `genprior serve`: a local server and one static page; imports nothing."""
