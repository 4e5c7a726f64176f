"""``python -m osport.cli``."""

from osport.cli import main

if __name__ == "__main__":
    main()
