"""All families of transformers that are looked at, by name."""

from .decoders import DECODERS
from .encoders import ENCODERS
from .images import IMAGES
from .mixtures import MIXTURES
from .recurrences import RECURRENCES
from .sounds import SOUNDS
from .translators import TRANSLATORS

FAMILIES = {
    **ENCODERS,
    **DECODERS,
    **MIXTURES,
    **RECURRENCES,
    **TRANSLATORS,
    **IMAGES,
    **SOUNDS,
}
