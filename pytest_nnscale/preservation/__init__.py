"""The model is the user's: what a run may change in modules and tensors, noted and put back.

Put back: values of buffers and of the tensors handed over, gradients, requires_grad, train and eval
flags, hooks, attributes of every submodule, version counters, a grad_fn that a buffer acquired, the
random number generators of torch, Python and NumPy, and the grad mode; lists, dicts, sets and plain
objects that attributes and inputs refer to, a few levels deep. Not put back: the values of
parameters, unless they are handed over; what lies deeper; and lazily initialised modules
(nn.LazyLinear), which a first forward initialises for good: they stay initialised.
"""
