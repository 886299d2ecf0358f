"""Plays sites of other seeds than the tests: python -m tests.simulation FIRST LAST. Says which of them go wrong."""

import sys
import traceback

from tests.simulation.test_simulation import play


def main(first: int, last: int) -> int:
    wrong = 0
    for seed in range(first, last):
        try:
            play(seed)
        except Exception:
            wrong += 1
            print(f"== seed {seed}")
            traceback.print_exc()
    print(f"{wrong} of {last - first} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
