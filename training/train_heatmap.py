"""Train the localiser: python training/train_heatmap.py --data_path … --model_name …"""

import sys
from pathlib import Path

# So that the script also runs from a checkout that was not installed; Python puts only training/ on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.arguments import parse_arguments
from utils.misc import run_command


def main() -> None:
    """Read the arguments, then load what training needs: --help answers at once."""
    settings = parse_arguments("heatmap")
    from training.scripts import train_and_test

    train_and_test(settings)


if __name__ == "__main__":
    run_command(main)
