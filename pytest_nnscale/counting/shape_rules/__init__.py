"""Shapes of what a few operators return, by rules of our own.

torch's meta kernels of these are written in Python and slow, are missing, or answer for another
device than a CPU. A rule takes specs in the place of tensors and returns the specs of the outputs,
or None where it does not hold; then torch is asked. Each agrees with what a CPU returns, to the
strides: tests/counting/test_shapes.py and its neighbours compare them with real calls.
"""

# Importing a family registers its rules.
from pytest_nnscale.counting.shape_rules import attention as attention
from pytest_nnscale.counting.shape_rules import convolutions as convolutions
from pytest_nnscale.counting.shape_rules import embeddings as embeddings
from pytest_nnscale.counting.shape_rules import images as images
from pytest_nnscale.counting.shape_rules import joining as joining
from pytest_nnscale.counting.shape_rules import losses as losses
from pytest_nnscale.counting.shape_rules import normalization as normalization
from pytest_nnscale.counting.shape_rules import pointwise as pointwise
from pytest_nnscale.counting.shape_rules import pools as pools
from pytest_nnscale.counting.shape_rules import products as products
from pytest_nnscale.counting.shape_rules import recurrent as recurrent
from pytest_nnscale.counting.shape_rules import reductions as reductions
from pytest_nnscale.counting.shape_rules.registry import rule_for as rule_for
