"""`python -m ssna` is `ssna`."""

from ssna.cli import main

if __name__ == "__main__":
    main()
