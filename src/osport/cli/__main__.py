"""``python -m osport.cli``."""

from osport.cli import main

main()
