"""`python -m qnodeos`: the command line, with the interpreter that is at hand."""

from qnodeos._orphans import end_with_supervisor
from qnodeos.cli import main

if __name__ == "__main__":
    end_with_supervisor()
    main()
