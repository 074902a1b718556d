"""`python -m model_layer build|verify|inspect`; what they do is in commands.py."""

import signal
import sys


def main(arguments: list[str] | None = None) -> int:
    """The status to exit with."""
    # While libraries are loaded nothing has begun, and some of them make an ImportError of a KeyboardInterrupt.
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from model_layer import commands

    signal.signal(signal.SIGINT, handler)
    try:
        return commands.main(arguments)
    except KeyboardInterrupt:
        print("interrupted: no half layer was left behind, and a download goes on where it stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
