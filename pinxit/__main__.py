"""Runs the command line as `python -m pinxit`."""

from pinxit.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
