"""Models: backbones, projection, pooling and the GSFL autoencoder."""

from gsfl_tune.hub_names import HubPlace, hub_place
from gsfl_tune.models._boundary import CannotCut
from gsfl_tune.models._facts import BackboneError, BackboneFacts
from gsfl_tune.models._probe import (
    backbone_problem,
    map_shape,
    probe,
    reading_problem,
    second_backbone_problem,
    second_layer_problem,
)
from gsfl_tune.models._reads import Reads
from gsfl_tune.models.adapters import adapters_problem
from gsfl_tune.models.backbones import Backbone, Preprocessing
from gsfl_tune.models.bilinear_attention import (
    AttentionSettings,
    BilinearAttention,
    attention_size,
    attention_work,
)
from gsfl_tune.models.create import create_backbone
from gsfl_tune.models.drop_path import drop_path_problem, seed_drop_paths
from gsfl_tune.models.ensemble import Ensemble, member_states
from gsfl_tune.models.granularities import (
    Granular,
    Granularities,
    GranularitySettings,
    granularities_size,
    granularities_work,
    map_layers,
    map_layers_work,
)
from gsfl_tune.models.heads import (
    HEAD_CLASSES,
    INFERENCE_HEADS,
    GsflHead,
    HeadOutput,
    LinearHead,
    PlainHead,
    create_head,
    head_class,
    head_parameters,
    scales_logits,
)
from gsfl_tune.models.hub import HubUnreachable, hub_problem, look_up
from gsfl_tune.models.layers import Layer, layers_of
from gsfl_tune.models.licences import Licence, licence, licence_problem
from gsfl_tune.models.mix_style import mix_style_problem, seed_mix_styles
from gsfl_tune.models.network import Network
from gsfl_tune.models.part_detector import (
    Detections,
    PartDetector,
    PartSettings,
    part_detector_size,
    part_work,
)
from gsfl_tune.models.pooling import (
    POOLINGS,
    Pooling,
    ScreenedPooling,
    create_pooling,
    pooled_channels,
    pooling_class,
    pooling_dim,
    pooling_package,
    pooling_problem,
    projection_channels,
)
from gsfl_tune.models.projection import Projection, fit_projection
from gsfl_tune.models.recurrent_attention import (
    Recurrence,
    RecurrentAttention,
    joined,
    recurrence_size,
    zoom_work,
)
from gsfl_tune.models.restitution import (
    Restituted,
    restitution_channels,
    restitution_problem,
    restitution_size,
)
from gsfl_tune.models.split import SplitBackbone, boundary_shape, gives_map
from gsfl_tune.models.streams import (
    Weights,
    second_layer_of,
    stream_names,
    stream_weights,
    weights_words,
)
from gsfl_tune.models.trained_part import (
    ADAPTERS,
    TrainedPart,
    has_batch_norms,
    part_problem,
    part_shapes,
    part_size,
)
from gsfl_tune.models.weights import (
    PACKAGES,
    WeightsError,
    WeightsUnavailable,
    has_screening,
    installed_packages,
    weights_problem,
)

__all__ = [
    "ADAPTERS",
    "HEAD_CLASSES",
    "INFERENCE_HEADS",
    "PACKAGES",
    "POOLINGS",
    "AttentionSettings",
    "Backbone",
    "BackboneError",
    "BackboneFacts",
    "BilinearAttention",
    "CannotCut",
    "Detections",
    "Ensemble",
    "Granular",
    "Granularities",
    "GranularitySettings",
    "GsflHead",
    "HeadOutput",
    "HubPlace",
    "HubUnreachable",
    "Layer",
    "Licence",
    "LinearHead",
    "Network",
    "PartDetector",
    "PartSettings",
    "PlainHead",
    "Pooling",
    "Preprocessing",
    "Projection",
    "Reads",
    "Recurrence",
    "RecurrentAttention",
    "Restituted",
    "ScreenedPooling",
    "SplitBackbone",
    "TrainedPart",
    "Weights",
    "WeightsError",
    "WeightsUnavailable",
    "adapters_problem",
    "attention_size",
    "attention_work",
    "backbone_problem",
    "boundary_shape",
    "create_backbone",
    "create_head",
    "create_pooling",
    "drop_path_problem",
    "fit_projection",
    "gives_map",
    "granularities_size",
    "granularities_work",
    "has_batch_norms",
    "has_screening",
    "head_class",
    "head_parameters",
    "hub_place",
    "hub_problem",
    "installed_packages",
    "joined",
    "layers_of",
    "licence",
    "licence_problem",
    "look_up",
    "map_layers",
    "map_layers_work",
    "map_shape",
    "member_states",
    "mix_style_problem",
    "part_detector_size",
    "part_problem",
    "part_shapes",
    "part_size",
    "part_work",
    "pooled_channels",
    "pooling_class",
    "pooling_dim",
    "pooling_package",
    "pooling_problem",
    "probe",
    "projection_channels",
    "reading_problem",
    "recurrence_size",
    "restitution_channels",
    "restitution_problem",
    "restitution_size",
    "scales_logits",
    "second_backbone_problem",
    "second_layer_of",
    "second_layer_problem",
    "seed_drop_paths",
    "seed_mix_styles",
    "stream_names",
    "stream_weights",
    "weights_problem",
    "weights_words",
    "zoom_work",
]
