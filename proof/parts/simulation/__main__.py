"""The trace of one story: `python -m proof.parts.simulation SEED`."""

import argparse
import logging
import sys

from .story import tell

parser = argparse.ArgumentParser(prog="python -m proof.parts.simulation", description=__doc__)
parser.add_argument("seed", type=int)
logging.getLogger("afk.messaging").setLevel(logging.CRITICAL)
sys.stdout.buffer.write(tell(parser.parse_args().seed).trace)
