"""The plain classifier by hand: where parameters are, and where work is done.

conv   27 x 32 + 32          =        896    2 x 27 x 32 x 224 x 224  =  86,704,128
fc1    401,408 x 64 + 64     = 25,690,176    2 x 401,408 x 64         =  51,380,224
fc2    64 x 10 + 10          =        650    2 x 64 x 10              =       1,280
                               25,691,722                               138,085,632
"""

import pytest

import pytest_nnscale

from .convnet import workload


@pytest.mark.max_params(896 + 25_690_176 + 650)
@pytest.mark.max_flops(86_704_128 + 51_380_224 + 1_280)
def test_sums(nnscale):
    """Parameters and FLOPs are the sums worked out by hand."""
    model, args = workload()
    nnscale(model, *args)
    profile = pytest_nnscale.profile(model, args=args)
    assert profile.params == 25_691_722
    assert profile.flops == 138_085_632


def test_where_they_are():
    """The first linear layer holds over 99.9 % of the parameters, the convolution 63 % of the work."""
    model, args = workload()
    rows = {row.path: row for row in pytest_nnscale.profile(model, args=args).modules}
    assert [rows[path].own_params for path in ("0", "4", "6")] == [896, 25_690_176, 650]
    assert [rows[path].own_flops for path in ("0", "4", "6")] == [86_704_128, 51_380_224, 1_280]
    assert rows["4"].own_params / rows[""].total_params > 0.999
    assert round(rows["0"].own_flops / rows[""].total_flops, 2) == 0.63
