"""Commands of the command line, one module each. A command imports torch only when it runs."""
