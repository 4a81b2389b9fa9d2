"""What goes wrong in layers, by the names that teachers call it."""

from lab_utils.checks.report import Mistake

LORA = "1. A LoRA layer"
HOLDS = "2. What a DoRA layer holds"
NORM = "3. Divide by the norm"
AXIS = "4. Which axis?"
DETACH = "5. The norm is a constant in the backward pass"
DROPOUT = "6. Dropout on the low-rank path only"
MERGE = "7. Merge"
B_NOT_ZERO = Mistake(
    "lora_B is not zero", "Start lora_B at zeros, so that the update starts at zero.", LORA
)
A_ZERO = Mistake(
    "lora_A is zero",
    "With lora_A and lora_B both zero their gradients are zero, and nothing is ever learned.",
    LORA,
)
A_NOT_RANDOM = Mistake(
    "lora_A is not random",
    "Equal rows get equal gradients: fill it with nn.init.kaiming_uniform_.",
    LORA,
)
A_THE_SAME = Mistake(
    "the same lora_A every time",
    "Draw it again for each layer: without torch.manual_seed, or a generator's, in __init__.",
    LORA,
)
RANK_IGNORED = Mistake("rank ignored", "rank is an argument: lora_A has as many rows.", LORA)
NO_PARAMETER = Mistake(
    "no nn.Parameter",
    "An optimiser finds the nn.Parameters of a layer: wrap the tensor in one.",
    LORA,
)
OTHER_NAME = Mistake(
    "another name",
    "Checks, optimisers and files find it by the name that the exercise says.",
    LORA,
)
NO_SUPER = Mistake(
    "super().__init__() left out", "An nn.Module calls it before it gets layers or tensors.", LORA
)
BIAS_ASSUMED = Mistake(
    "a bias taken for granted", "original_layer.bias may be None: check before you use it.", LORA
)
SQUEEZED = Mistake(
    "a dimension of x lost",
    "The output has all leading dimensions of x, also those of size 1.",
    LORA,
)
DIMENSION_ADDED = Mistake(
    "a dimension of x added", "The output has the leading dimensions of x, and no others.", LORA
)
COLUMN_ON_OUTPUT = Mistake(
    "a column on the output",
    "(out, 1) has one number per row of a weight. The features of an output are its last "
    "dimension: flatten the column before it meets one.",
    LORA,
)
NOT_LINEAR = Mistake(
    "not linear in x",
    "W0 x and B A x are matrix products: no activation function lies between or behind them, and "
    "no output is normalised.",
    LORA,
)
CHANGES_BY_ITSELF = Mistake(
    "not the same output twice",
    "In evaluation mode the output depends only on x and the parameters: nothing is random, and "
    "nothing is counted or kept from an earlier call.",
    LORA,
)
MIXED_VECTORS = Mistake(
    "vectors of x mixed",
    "Each vector of x is mapped by itself: no mean, sum or norm goes over the others.",
    LORA,
)
HIDDEN = Mistake(
    "parameters in a list or dict",
    "nn.Module finds parameters that are its attributes: self.lora_A = nn.Parameter(...).",
    LORA,
)
FACTORS_SWAPPED = Mistake(
    "lora_A and lora_B swapped",
    "lora_A comes first, (rank, in_features); lora_B is (out_features, rank).",
    LORA,
)
SIZES_MIXED_UP = Mistake(
    "in_features and out_features mixed up",
    "lora_A has a column for each input, lora_B a row for each output: on a square layer nobody "
    "would notice.",
    LORA,
)
SOME_SHAPES = Mistake(
    "only some shapes of x",
    "F.linear(x, weight), like x @ weight.T, takes any leading dimensions.",
    LORA,
)
NEVER_FILLED = {
    name: Mistake(
        f"{name} is never given values",
        "torch.empty and torch.Tensor(sizes) hold whatever was in memory before, here NaN: fill "
        f"{name} {how}.",
        section,
    )
    for name, how, section in (
        ("lora_A", "with nn.init.kaiming_uniform_", LORA),
        ("lora_B", "with zeros", LORA),
        ("magnitude", "with the norms of W0", HOLDS),
    )
}
FACTOR_TRANSPOSED = Mistake(
    "factor transposed", "lora_A is (rank, in_features), lora_B is (out_features, rank).", LORA
)
INNER_MODULE = Mistake(
    "parameter of an inner module",
    "Keep lora_A and lora_B as nn.Parameter on the layer itself, not in an nn.Linear.",
    LORA,
)
BASE_TRAINABLE = Mistake(
    "base weight trainable",
    "Freeze the original layer, bias included: original_layer.requires_grad_(False).",
    LORA,
)
ADAPTER_FROZEN = Mistake(
    "adapter frozen",
    "Freeze original_layer, not the whole layer: lora_A and lora_B are what is trained.",
    LORA,
)
EXTRA_TRAINED = Mistake(
    "something else trainable", "Nothing but the adapter's own parameters is trained.", LORA
)
COPIED = Mistake(
    "original layer not kept",
    "Keep the layer itself, self.original_layer = original_layer: a copy takes as much memory "
    "again.",
    LORA,
)
COPY_KEPT = Mistake(
    "a second weight kept",
    "The layer needs no other tensor of the frozen weight's size: a copy, like a stored direction, "
    "takes its memory again.",
    LORA,
)
IN_PLACE = Mistake(
    "in-place change of the base layer",
    "The adapter and the merged layer are new; the pretrained weight stays as it was.",
    LORA,
)
X_CHANGED = Mistake(
    "in-place change of the input",
    "Operators such as *=, and methods that end in _, write into the caller's x.",
    LORA,
)
BIAS_LOST = Mistake("bias lost", "The output and the merged layer need the base's bias.", LORA)
BIAS_TWICE = Mistake(
    "bias added twice", "original_layer(x) has added the bias already: add it once.", LORA
)
BIAS_SCALED = Mistake(
    "bias scaled", "The bias is added last: neither m nor the norm acts on it.", LORA
)
BIAS_MADE_UP = Mistake(
    "another bias", "A new nn.Linear has a random bias: copy the base's, or pass bias=False.", MERGE
)
BIAS_OF_ZEROS = Mistake(
    "a bias of zeros",
    "Where the base has no bias, the merged layer has none either: bias=False.",
    MERGE,
)
MERGED_COARSE = Mistake(
    "precision lost", "The merged layer has the dtype of the base's weight.", MERGE
)
SCALING_LEFT_OUT = Mistake("scaling left out", "Multiply B A by scaling = alpha / rank.", LORA)
SCALING_TWICE = Mistake("scaling applied twice", "Multiply B A by alpha / rank once.", LORA)
SCALING_OTHER = Mistake(
    "another scaling", "scaling is alpha / rank: not alpha, not alpha / sqrt(rank).", LORA
)
SCALING_MULTIPLIED = Mistake(
    "alpha times rank", "scaling is alpha / rank: a larger rank makes it smaller.", LORA
)
SCALING_UPSIDE_DOWN = Mistake("scaling upside down", "scaling is alpha / rank.", LORA)
ALPHA_LEFT_OUT = Mistake("alpha left out", "scaling is alpha / rank, not 1 / rank.", LORA)
SCALING_WHOLE = Mistake(
    "whole-number division", "Use / and neither // nor int(): a scaling may be a fraction.", LORA
)
SCALING_FIXED = Mistake(
    "scaling of the defaults", "scaling is alpha / rank, with the arguments that are passed.", LORA
)
FROZEN_SCALED = Mistake(
    "frozen weight scaled", "The scaling belongs to B A alone: W0 x and b are not scaled.", LORA
)
OUTPUT_DOUBLED = Mistake(
    "twice the frozen output", "Before training the output is W0 x + b, once.", LORA
)
UPDATE_LEFT_OUT = Mistake("update left out", "Add scaling * B A to the frozen weight.", LORA)
UPDATE_TWICE = Mistake("update added twice", "Add scaling * B A once.", LORA)
UPDATE_SUBTRACTED = Mistake("update subtracted", "Add scaling * B A, do not subtract it.", LORA)
FROZEN_LEFT_OUT = Mistake("frozen weight left out", "The update is added to W0 x.", LORA)
FROZEN_TWICE = Mistake(
    "frozen output added twice", "W' contains W0: do not add original_layer(x) to W' x.", LORA
)
GRADIENT_CUT = Mistake(
    "gradient cut off",
    "Leave .data, .detach() and no_grad out of forward; DoRA's norm alone is detached.",
    LORA,
)
RANDOM_MAGNITUDE = Mistake(
    "random magnitude",
    "The magnitude starts as ||W0||, so that the first output is that of the frozen layer.",
    HOLDS,
)
MAGNITUDE_OF_ONES = Mistake(
    "magnitude of ones or zeros",
    "The magnitude starts as ||W0||, so that the first output is that of the frozen layer.",
    HOLDS,
)
MAGNITUDE_SCALED = Mistake(
    "magnitude scaled", "The scaling belongs to B A alone: m starts as ||W0||.", HOLDS
)
MAGNITUDE_FROZEN = Mistake(
    "magnitude frozen", "Make it an nn.Parameter and let gradients reach it.", HOLDS
)
MAGNITUDE_UNUSED = Mistake(
    "magnitude unused", "The trained magnitude is what multiplies each direction.", HOLDS
)
MAGNITUDE_ADDED = Mistake(
    "magnitude as a change", "m is the whole length: it is not added to another one.", HOLDS
)
POSITIVE_MAGNITUDE = Mistake(
    "magnitude made positive",
    "Multiply by m as it is: training may take it to zero or below.",
    HOLDS,
)
MAGNITUDE_TURNED = Mistake(
    "magnitude transposed",
    "Its shape is (out_features, 1), or (1, in_features) with norm_dim=0.",
    HOLDS,
)
REPEATED = Mistake(
    "one magnitude per entry", "Each vector has one: (out_features, 1) or (1, in_features).", HOLDS
)
MAGNITUDE_RELATIVE = Mistake(
    "magnitude as a factor of ||W0||", "m is the length itself, and starts as ||W0||.", HOLDS
)
LOST_DIMENSION = Mistake(
    "summed dimension dropped",
    "Pass keepdim=True, so that the magnitude keeps two dimensions.",
    HOLDS,
)
NO_NORMALISATION = Mistake(
    "no normalisation", "Divide W0 + scaling * B A by its norm before m multiplies it.", NORM
)
MAGNITUDE_CHANGED = Mistake(
    "magnitude changed before it is used",
    "m multiplies the direction as it is: no abs, clamp, square, exp, softplus or sigmoid of it.",
    HOLDS,
)
DIVIDED_BY_MAGNITUDE = Mistake(
    "divided by the magnitude",
    "m multiplies: training may take it to zero, and then nothing can be divided by it.",
    HOLDS,
)
MULTIPLIED_BY_NORM = Mistake(
    "multiplied by the norm", "Divide W0 + scaling * B A by its norm.", NORM
)
EARLIER_NORM = Mistake(
    "the norm of an earlier pass",
    "lora_A and lora_B have changed since: compute the norm of V again at every pass.",
    NORM,
)
EARLIER_WEIGHT = Mistake(
    "the weight of an earlier pass",
    "lora_A and lora_B have changed since: compute the update again at every pass.",
    LORA,
)
NORM_OF_BASE = Mistake(
    "norm of W0 instead of V",
    "Divide by the norm of the updated weight, which changes as B A is trained.",
    NORM,
)
NORM_SCALED_TWICE = Mistake(
    "scaling applied twice in the norm", "The norm is that of V = W0 + scaling * B A.", NORM
)
NORM_UNSCALED = Mistake(
    "scaling left out of the norm", "The norm is that of V = W0 + scaling * B A.", NORM
)
NOT_A_LENGTH = Mistake(
    "not the Euclidean length",
    "The norm is the square root of the sum of squares of each vector, taken once.",
    NORM,
)
ANOTHER_NORM = Mistake(
    "another norm",
    "Each vector of V = W0 + scaling * B A is divided by its own Euclidean length, which is "
    "computed from V at every pass.",
    NORM,
)
WHOLE_NORM = Mistake(
    "one norm for the whole matrix", "Each row (norm_dim=0: each column) has a length.", NORM
)
DIM_AS_P = Mistake(
    "norm_dim taken as p",
    "The first argument of norm is its order: write norm(dim=norm_dim, keepdim=True).",
    NORM,
)
ANOTHER_EPS = Mistake(
    "another eps",
    "The number that prevents a division by zero must be far smaller than any norm.",
    NORM,
)
LOGARITHM = Mistake("logarithm of the magnitude", "m is the length itself.", HOLDS)
FACTOR_ON_UPDATE = Mistake(
    "factor on the update only", "m / ||V|| multiplies W0 and the update alike.", NORM
)
NORM_OF_UPDATE = Mistake(
    "norm of the update alone", "The norm is that of V = W0 + scaling * B A.", NORM
)
ZERO_DIVISION = Mistake(
    "division by a zero norm",
    "A vector of zeros has norm 0, and 0/0 is NaN, which no torch.where takes out of the gradients "
    "again: divide by norm.clamp_min(1e-8).",
    NORM,
)
UPDATE_ON_DIRECTION = Mistake(
    "update added to the direction",
    "Add scaling * B A to W0 itself and divide the sum, not W0 alone, by its norm.",
    NORM,
)
UPDATE_OUTSIDE = Mistake(
    "update added after the norm",
    "W0 + scaling * B A as a whole is divided by its norm and multiplied by m.",
    NORM,
)
TWO_NORMS = Mistake(
    "two norms in place of one",
    "W0 and scaling * B A are added first; the norm is that of their sum.",
    NORM,
)
NORMALISED_FACTORS = Mistake(
    "lora_A and lora_B normalised", "The norm is that of W0 + scaling * B A as a whole.", NORM
)
NORMALISED_UPDATE = Mistake(
    "only the update normalised", "The norm is that of W0 + scaling * B A, not of B A.", NORM
)
WRONG_AXIS = Mistake(
    "norm over the wrong axis",
    "norm_dim is the dimension that the norm sums over; 1 gives one magnitude per output.",
    AXIS,
)
NOT_DETACHED = Mistake(
    "norm not detached", "Treat the norm as a constant: norm.detach() (paper, eq. 11).", DETACH
)
DROPOUT_ON_FROZEN = Mistake(
    "dropout on the frozen path", "Drop inputs of B A only: W0 must see every input.", DROPOUT
)
DROPOUT_UNUSED = Mistake(
    "dropout unused", "Pass the input of B A through nn.Dropout(dropout).", DROPOUT
)
DROPOUT_IN_EVAL = Mistake(
    "dropout in evaluation",
    "Nothing is dropped or rescaled there: nn.Dropout does nothing after layer.eval(); F.dropout "
    "needs training=.",
    DROPOUT,
)
DROPPED_ELSEWHERE = Mistake(
    "not the input dropped",
    "Drop inputs of A: not the outputs of A or B, nor entries of a weight.",
    DROPOUT,
)
TWO_MASKS = Mistake(
    "two masks for one x",
    "Drop x once, and use the same dropped x for both: the part that the magnitude adds to W0 x, "
    "and B A.",
    DROPOUT,
)
NOT_RESCALED = Mistake(
    "kept inputs not rescaled",
    "What is kept is divided by 1 - dropout, as nn.Dropout does.",
    DROPOUT,
)
P_MIRRORED = Mistake(
    "dropout mirrored",
    "dropout is the probability of dropping an input, not of keeping it.",
    DROPOUT,
)
MASK_FIXED = Mistake(
    "the same inputs dropped at every pass", "Draw again at each pass, as nn.Dropout does.", DROPOUT
)
VECTORS_DROPPED = Mistake(
    "whole vectors dropped", "Each input is dropped or kept by itself, as in nn.Dropout.", DROPOUT
)
MASK_SHARED = Mistake(
    "one mask for all vectors", "Each input of each vector is dropped or kept by itself.", DROPOUT
)
OTHER_IN_TRAINING = Mistake(
    "another output in training",
    "Only dropout makes training differ from evaluation, and dropout=0.0 makes no difference.",
    DROPOUT,
)
DROPPED_TWICE = Mistake("dropped twice", "Pass the input through dropout once.", DROPOUT)
RESCALED_OTHERWISE = Mistake(
    "kept inputs rescaled by another factor",
    "What is kept is divided by 1 - dropout, as nn.Dropout does.",
    DROPOUT,
)
P_FIXED = Mistake(
    "another dropout probability", "Pass the argument on: nn.Dropout(dropout).", DROPOUT
)
NORM_MISSING_IN_MERGE = Mistake(
    "norm missing from the merged weight", "The merged weight is m * V / ||V||.", MERGE
)
MERGED_BY_MODE = Mistake(
    "merge() depends on the mode", "The merged weight is W', in either mode: drop nothing.", MERGE
)
NO_PLAIN_LINEAR = Mistake(
    "not a plain nn.Linear", "merge() returns a new nn.Linear, not the adapter.", MERGE
)
MERGED_RANDOM = Mistake(
    "random weight in merge()", "A new nn.Linear has random weights: copy W' into it.", MERGE
)
MERGED_TRANSPOSED = Mistake(
    "merged weight transposed",
    "nn.Linear holds its weight as (out_features, in_features), like the base layer.",
    MERGE,
)
MERGED_EARLIER = Mistake(
    "an earlier merged layer",
    "Compute W' at every call of merge(), and make a new nn.Linear: training goes on in between.",
    MERGE,
)
ADAPTER_CHANGED = Mistake(
    "adapter changed by merge()", "merge() makes a new layer; the adapter can be trained on.", MERGE
)
MODE_CHANGED = Mistake(
    "mode changed by merge()", "merge() needs neither eval() nor train(): leave the mode.", MERGE
)
