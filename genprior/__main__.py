"""Entry point of `python -m genprior`."""

from genprior.cli import main

if __name__ == "__main__":
    main()
