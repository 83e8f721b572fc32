"""All numeric tolerances of the tests, each with its reason."""

GOLDEN_FEATURE = 1e-4
"""Absolute, on features of the authors' implementation: float32 sums in another order."""
GOLDEN_TRAINING = 1e-3
"""Relative, on losses and gradient norms: float32 through twelve blocks and back."""
CLIP_TOKENS = 1e-4
"""Absolute, against transformers' CLIPVisionModel."""
FOLDING = 1e-5
"""Absolute, on unit-length embeddings: constants folded in float32."""
SCAN_FLOAT32 = 2e-5
"""Relative to the largest value, against float64: rounding of up to 400 steps."""
SCAN_FLOAT16 = 2e-3
"""Relative to the largest value: u, delta, B, C and y are rounded to 11 bits."""
SCAN_GRADIENT = 1e-8
"""Relative, in float64: torch's softplus turns linear at 20, its derivative in ours does not."""
SCAN_GRADIENT_FLOAT32 = 1e-4
"""Relative to the largest value, float32 against float64: sums over steps, channels and rows."""
SCAN_PATHS = 1e-4
"""Absolute, on unit-length embeddings: native operator against the loop in the file."""
GRADIENT_ZERO = 1e-5
"""Absolute: the bias before a BatchNorm has no gradient but rounding; all others exceed 1e-3."""
SCAN_BFLOAT16 = 8e-3
"""Relative to the largest value: u, delta, B, C and y are rounded to 8 bits."""
DISTRIBUTED_LOSS = 1e-5
"""Absolute, over 20 steps: float32 sums over two processes in another order, grown by training."""
HALF_STEP = 1e-3
"""Absolute: float32 sums in another order may flip one rounding to float16 near 1."""
QUANTISED_FLIPS = 2e-3
"""Share of quantised values that may be one step off: float32 results in another order, and one
multiplication where the standard divides, move what lies between two steps."""
