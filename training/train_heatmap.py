"""Train the localiser: python training/train_heatmap.py --data_path … --model_name …"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts only training/ on the path. With the root, the script also runs without an installation.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.arguments import parse_arguments
from utils.misc import command
from utils.tasks import HEATMAP


@command
def main() -> None:
    """Read the arguments, then train; torch is imported only now, so that --help is quick."""
    settings = parse_arguments(HEATMAP)
    from training.scripts import run

    run(settings)


if __name__ == "__main__":
    main()
