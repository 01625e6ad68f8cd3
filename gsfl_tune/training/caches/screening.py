"""The screening head of a backbone's weights, for the pooling that reads it."""

from __future__ import annotations

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.models import Backbone, Pooling, ScreenedPooling


def with_head(pooling: Pooling, backbone: Backbone) -> Pooling:
    """Gives the pooling `screened` the head that was loaded with a backbone; others stay.

    Raises:
        UserError: If the file of the weights has none.
    """
    if isinstance(pooling, ScreenedPooling):
        if backbone.screening is None:
            raise UserError(
                f"model.pooling: found screened, but the weights of {backbone.name} have no "
                "screening head; allowed: average, or weights of a pretraining with "
                "pretrain.lcr.weight above 0"
            )
        pooling.take(*backbone.screening)
    return pooling
