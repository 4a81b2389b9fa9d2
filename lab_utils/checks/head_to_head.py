"""What the checks of lesson 04 share: the model that is adapted and trained."""

from torch import Tensor

import lab_utils.adapters
import lab_utils.comparison
import lab_utils.training
from lab_utils.models import TinyLanguageModel
from lab_utils.questions.student_code import drawing_from

REFERENCE = (
    lab_utils.adapters.__file__,
    lab_utils.training.__file__,
    lab_utils.comparison.__file__,
)
CLOSE = 1e-4  # relative: allows for rounding in float32


def base_model(n_blocks: int, seed: int) -> TinyLanguageModel:
    """Return a language model of 16 features, the same for the same arguments."""
    with drawing_from(seed):
        return TinyLanguageModel(d_model=16, n_heads=2, n_blocks=n_blocks, context=8)


def state_of(model: TinyLanguageModel) -> dict[str, Tensor]:
    """Return copies of a model's tensors, by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
