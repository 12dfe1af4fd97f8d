"""The command line: `convlet train | evaluate | predict | doctor`.

This module and the parser import nothing heavy, so that `convlet --help` answers at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

INTERRUPTED = 130  # 128 + SIGINT, as shells count
MISTAKE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for a user's mistake, 130 after Ctrl-C.

    A mistake is told in one line on stderr. CONVLET_DEBUG=1 shows the traceback of any error.
    """
    # An image that Pillow warns about is either read well or an error of ours.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        from convlet.cli.parser import parse

        options = parse(arguments)
        options.run(options)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt as interrupt:
        _say(str(interrupt) or "interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, MemoryError) as error:
        if os.environ.get("CONVLET_DEBUG"):
            raise
        _say(f"error: {_one_line(error)}")
        return MISTAKE
    except Exception as error:
        if os.environ.get("CONVLET_DEBUG"):
            raise
        _say(
            f"internal error: {type(error).__name__}: {_one_line(error)} "
            "(CONVLET_DEBUG=1 shows where)"
        )
        return 1


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _say(text: str) -> None:
    sys.stdout.flush()
    print(f"convlet: {text}", file=sys.stderr)
