"""skrd4ad: real-time visual inspection for production lines.

The repository root is this package. Read `pipeline/line.py` for the line, `engine/compile.py`
for how a plan is proved, `trainer/train.py` for how the network learns, docs/ for the rest.
"""

__version__ = "0.1.0"
