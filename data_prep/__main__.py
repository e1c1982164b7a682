"""`python -m data_prep NAME [--root DIR]`, `python -m data_prep --list`."""

import argparse
import sys

from data_prep import DATASETS, DataError, data_root, dataset


def state(module, root) -> str:
    try:
        module.checksums(root)
        return "ready"
    except DataError as error:
        return "corrupt" if "corrupt" in str(error) else "not here"


def list_datasets(root) -> None:
    print(f"data folder: {data_root(root)}\n")
    rows = [(m.NAME, state(m, root), m.SIZE, m.LICENCE, m.TITLE) for m in map(dataset, DATASETS)]
    rows.insert(0, ("name", "state", "size", "licence", "what"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)] + [0]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m data_prep", description="Get and verify the data of the studies.")
    parser.add_argument("name", nargs="*", help=f"data sets to get: {', '.join(DATASETS)}")
    parser.add_argument("--root", help="data folder (default: $ATTRAIN_DATA, else ./data)")
    parser.add_argument("--list", action="store_true", help="say what is there, its size and licence")
    options = parser.parse_args(arguments)
    if not options.name and not options.list:
        parser.error("name a data set, or use --list")
    try:
        for name in options.name:
            dataset(name).prepare(options.root)
            print(f"{name}: ready")
        if options.list:
            list_datasets(options.root)
    except (DataError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
