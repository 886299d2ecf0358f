"""`python -m afterward`: the command line."""

from afterward.cli import main

if __name__ == "__main__":
    main()
