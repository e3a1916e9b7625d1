"""Images, sounds and videos: which a rollout has beside the conversation, and the form that a trainer reads."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from fastsft.formats.content import Content, Part
from fastsft.formats.turns import Turn
from fastsft.rollouts.rollout import Rollout, json_type

_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, Raw])

# What each kind of part is called in the report.
_KINDS = {"image_url": "images", "image": "images", "video_url": "videos", "video": "videos", "input_audio": "sounds"}
# NeMo Gym's model servers take media from the request's metadata under these names, past the conversation
# (`responses_api_models/vllm_model/README.md`).
_BESIDE = {
    f"{kind}_{form}": name
    for kind, name in (("audio", "sounds"), ("image", "images"), ("video", "videos"))
    for form in ("url", "urls", "path", "paths", "data")
}
_PREFIXES = (b"audio_", b"image_", b"video_")
_EMPTY = (b"null", b'""', b"[]", b"{}")


def media_beside(rollout: Rollout) -> set[str]:
    """Return the kinds of media that lie in the request's metadata, which no row has."""
    if not rollout.metadata or json_type(rollout.metadata) != "object":
        return set()
    metadata = bytes(rollout.metadata)
    if not any(prefix in metadata for prefix in _PREFIXES):
        return set()
    try:
        entries = _object.decode(metadata)
    except (msgspec.DecodeError, RecursionError):
        return set()
    return {_BESIDE[name] for name, value in entries.items() if name in _BESIDE and bytes(value) not in _EMPTY}


def media_in(turns: Iterable[Turn]) -> set[str]:
    """Return the kinds of media in the content of some turns."""
    kinds = set()
    for turn in turns:
        if isinstance(turn.content, list):
            for part in turn.content:
                kinds.add(_KINDS.get(str(_plain(part).get("type")), "files"))
    return kinds - {"files"}


def for_nemo_rl(content: Content) -> Content:
    """Return content with images and videos as NeMo RL's loader reads them: `{"type": "image", "image": ADDRESS}`.

    It trains without the picture on `image_url` parts. Source: `nemo_rl/data/llm_message_utils.py`.
    """
    return [_for_nemo_rl(part) for part in content] if isinstance(content, list) else content


def _for_nemo_rl(part: Part) -> Part:
    canonical_json = _plain(part)
    for kind in ("image", "video"):
        if canonical_json.get("type") == f"{kind}_url":
            where = canonical_json.get(f"{kind}_url")
            where = where.get("url") if isinstance(where, dict) else where
            if isinstance(where, str):
                return Raw(_encode({"type": kind, kind: where}))
    return part


def _plain(part: Part) -> dict[str, object]:
    value = _any.decode(_encode(part))
    return value if isinstance(value, dict) else {}
