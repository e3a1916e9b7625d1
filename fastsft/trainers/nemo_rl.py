"""NeMo RL: `openai_format` with `use_preserving_dataset` reads each line as it is; `fastsft nemo-rl` writes its config.

One row whose last turn is not the assistant's stops the load. Parts of the form `image_url` are left out without a
word; `{"type": "image", "image": ADDRESS}` is read.
"""

from __future__ import annotations

from fastsft.trainers.trainer import UNREADABLE, Trainer

NEMO_RL = Trainer(
    name="nemo-rl",
    title="NeMo RL",
    source="NeMo RL 7ea279a, nemo_rl/data/datasets/response_datasets/oai_format_dataset.py",
    format=("chat", "openai", "simple"),
    arguments=("object", "string"),
    media="nemo-rl",
    stops=UNREADABLE | {"blank_line", "last_role", "media_parts", "string_tools"},
    takes=frozenset({"mixed_schemas", "long_integer", "case_keys", "parts"}),
)
