"""``python -m lightning_ad`` is the command ``lightning``."""

from lightning_ad.cli import main

if __name__ == "__main__":
    main()
