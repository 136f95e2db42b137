"""The figures that torchvision publishes with its weights, read without loading any weights."""

from torchvision.models import WeightsEnum, get_model_weights

from pytest_nnscale import Profile


def published_params(name: str) -> int:
    """Parameters of a model, exact."""
    params: int = _meta(name)["num_params"]
    return params


def published_macs(name: str) -> int:
    """The most MACs a model may need and still round to the published GMAC.

    torchvision rounds to three decimals, so half a unit of the last digit is the only slack.
    """
    return round(_meta(name)["_ops"] * 1000) * 1_000_000 + 500_000


def published(name: str) -> tuple[int, float]:
    """Parameters and GMAC of a model, as torchvision prints them."""
    return published_params(name), _meta(name)["_ops"]


def published_with(weights: WeightsEnum) -> tuple[int, float]:
    """Parameters and GMAC that stand beside one set of weights."""
    return weights.meta["num_params"], weights.meta["_ops"]


def as_published(profile: Profile) -> tuple[int | None, float | None]:
    """Parameters and GMAC of a profile, rounded as torchvision rounds."""
    return profile.params, None if profile.macs is None else round(profile.macs / 1e9, 3)


def _meta(name: str) -> dict:
    # Several weights of one model differ in training, not in architecture, save where a second
    # set was made for larger images (the SWAG ones): the first is the plain one in all.
    return next(iter(get_model_weights(name))).meta
