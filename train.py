"""Trains a recurrent text model: flags → config → loop.

python train.py --config configs/imdb.py
python train.py --config configs/reuters.py:keras --workdir runs/keras --config.seed=1
python train.py --config configs/reuters.py --workdir runs/reuters --seeds 5
"""

import sys

from flaxrnn import cli

if __name__ == "__main__":
    cli.train(sys.argv)
