"""The native engine, through ctypes: the few functions of ``llama.h`` that generation needs.

They are exported by the extension module of the ``xllamacpp`` wheel, which is opened as a plain
shared object: its own Python layer is never imported. C structs that change between releases are
treated as opaque blobs. Each is filled by the library's own ``*_default_params``, whose values are
compared with the ones known for the supported wheel before a single field is written; another
layout is refused with ``ConfigError`` rather than guessed at.

Not thread-safe, and a fault in native code ends the process: it belongs in the engine's own child
process (``worker.py``) and nowhere else.

Source: ``include/llama.h`` of llama.cpp as built into xllamacpp 2026.10.11549.
"""

import ctypes
import importlib.metadata
import importlib.util
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from trunkline.base.errors import ConfigError, CorruptStateError, RequestError, UpstreamError

WHEEL = "xllamacpp"
WHEEL_VERSION = "2026.10.11549"

TEXT_BYTES_MAX = 1 << 20
"""Longest text tokenised in one call."""

GRAMMAR_BYTES_MAX = 256 << 10
_PIECE_BYTES = 512
_LOG_LEVEL_ERROR = 4
_FLASH_ATTENTION = {False: 0, True: 1}
_LOAD_MODE_MMAP = 1
CACHE_TYPE = {"f32": 0, "f16": 1}

ATTENTION_ROWS_MAX = 63
"""From 64 rows a micro-batch on, another attention kernel runs, with other roundings."""

_BLOB_BYTES = 512
"""Room for a params struct returned or passed by value. Larger than any that llama.h had, so a
newer library can not write past it; being over 16 bytes, it travels by hidden pointer as theirs."""


class _Blob(ctypes.Structure):
    _fields_ = (("raw", ctypes.c_uint8 * _BLOB_BYTES),)


class _Batch(ctypes.Structure):
    """``struct llama_batch``."""

    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    )


class _TokenData(ctypes.Structure):
    """``struct llama_token_data``."""

    _fields_ = (("id", ctypes.c_int32), ("logit", ctypes.c_float), ("p", ctypes.c_float))


class _TokenDataArray(ctypes.Structure):
    """``struct llama_token_data_array``."""

    _fields_ = (
        ("data", ctypes.POINTER(_TokenData)),
        ("size", ctypes.c_size_t),
        ("selected", ctypes.c_int64),
        ("sorted", ctypes.c_bool),
    )


# Name: (offset in bytes, struct format, default value). All the defaults are checked, also of
# fields never written: they are what shows that nothing moved.
_MODEL_FIELDS: dict[str, tuple[int, str, int | float]] = {
    "devices": (0, "q", 0),
    "tensor_buft_overrides": (8, "q", 0),
    "n_gpu_layers": (16, "i", -1),
    "split_mode": (20, "i", 1),
    "load_mode": (24, "i", -1),
    "lazy_mode": (28, "i", 1),
    "main_gpu": (32, "i", 0),
    "tensor_split": (40, "q", 0),
    "progress_callback": (48, "q", 0),
    "progress_callback_user_data": (56, "q", 0),
    "kv_overrides": (64, "q", 0),
    "vocab_only": (72, "?", 0),
    "check_tensors": (73, "?", 0),
    "use_extra_bufts": (74, "?", 1),
    "no_host": (75, "?", 0),
    "no_alloc": (76, "?", 0),
    "load_mtp": (77, "?", 0),
}
_CONTEXT_FIELDS: dict[str, tuple[int, str, int | float]] = {
    "n_ctx": (0, "I", 512),
    "n_batch": (4, "I", 2048),
    "n_ubatch": (8, "I", 512),
    "n_seq_max": (12, "I", 1),
    "n_rs_seq": (16, "I", 0),
    "n_outputs_max": (20, "I", 0),
    "n_outputs_max_per_seq": (24, "I", 1),
    "n_threads": (28, "i", 4),
    "n_threads_batch": (32, "i", 4),
    "ctx_type": (36, "i", 0),
    "rope_scaling_type": (40, "i", -1),
    "pooling_type": (44, "i", -1),
    "attention_type": (48, "i", -1),
    "flash_attn_type": (52, "i", -1),
    "rope_freq_base": (56, "f", 0.0),
    "rope_freq_scale": (60, "f", 0.0),
    "yarn_ext_factor": (64, "f", -1.0),
    "yarn_attn_factor": (68, "f", -1.0),
    "yarn_beta_fast": (72, "f", -1.0),
    "yarn_beta_slow": (76, "f", -1.0),
    "yarn_orig_ctx": (80, "I", 0),
    "defrag_thold": (84, "f", -1.0),
    "cb_eval": (88, "q", 0),
    "cb_eval_user_data": (96, "q", 0),
    "type_k": (104, "i", 1),
    "type_v": (108, "i", 1),
    "embeddings": (136, "?", 0),
    "offload_kqv": (137, "?", 1),
    "no_perf": (138, "?", 1),
    "op_offload": (139, "?", 1),
    "swa_full": (140, "?", 1),
    "kv_unified": (141, "?", 0),
}

_P, _I32, _BOOL, _CHARS = ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_char_p
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

_PROTOTYPES: dict[str, tuple[object, tuple[object, ...]]] = {
    "llama_backend_init": (None, ()),
    "llama_log_set": (None, (_LOG_CALLBACK, _P)),
    "llama_print_system_info": (_CHARS, ()),
    "llama_model_default_params": (_Blob, ()),
    "llama_context_default_params": (_Blob, ()),
    "llama_model_load_from_file": (_P, (_CHARS, _Blob)),
    "llama_model_free": (None, (_P,)),
    "llama_init_from_model": (_P, (_P, _Blob)),
    "llama_free": (None, (_P,)),
    "llama_n_ctx_seq": (ctypes.c_uint32, (_P,)),
    "llama_n_ubatch": (ctypes.c_uint32, (_P,)),
    "llama_get_memory": (_P, (_P,)),
    "llama_memory_seq_rm": (_BOOL, (_P, _I32, _I32, _I32)),
    "llama_memory_seq_pos_max": (_I32, (_P, _I32)),
    "llama_state_seq_get_size": (ctypes.c_size_t, (_P, _I32)),
    "llama_state_seq_get_data": (ctypes.c_size_t, (_P, _P, ctypes.c_size_t, _I32)),
    "llama_state_seq_set_data": (ctypes.c_size_t, (_P, _P, ctypes.c_size_t, _I32)),
    "llama_decode": (_I32, (_P, _Batch)),
    "llama_get_logits_ith": (_P, (_P, _I32)),
    "llama_model_get_vocab": (_P, (_P,)),
    "llama_model_n_ctx_train": (_I32, (_P,)),
    "llama_model_chat_template": (_CHARS, (_P, _CHARS)),
    "llama_model_meta_val_str": (_I32, (_P, _CHARS, _CHARS, ctypes.c_size_t)),
    "llama_vocab_n_tokens": (_I32, (_P,)),
    "llama_vocab_is_eog": (_BOOL, (_P, _I32)),
    "llama_vocab_bos": (_I32, (_P,)),
    "llama_vocab_eos": (_I32, (_P,)),
    "llama_vocab_get_text": (_CHARS, (_P, _I32)),
    "llama_token_to_piece": (_I32, (_P, _I32, _P, _I32, _I32, _BOOL)),
    "llama_tokenize": (_I32, (_P, _CHARS, _I32, _P, _I32, _BOOL, _BOOL)),
    "llama_sampler_init_grammar": (_P, (_P, _CHARS, _CHARS)),
    "llama_sampler_apply": (None, (_P, ctypes.POINTER(_TokenDataArray))),
    "llama_sampler_accept": (None, (_P, _I32)),
    "llama_sampler_free": (None, (_P,)),
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What of the context's shape is ours to choose. All but ``threads`` may change logit bits."""

    sequences: int
    context_tokens: int
    """Per sequence."""
    ubatch_tokens: int
    threads: int = 1
    flash_attention: bool = True
    cache_type: str = "f16"
    unified_cache: bool = False
    extra_buffers: bool = False
    """Let the library re-pack weights for its own kernels (gives up sharing them by mmap)."""


def library_path() -> Path:
    """The wheel's shared object. Raises ``ConfigError`` saying what to install."""
    wanted = f"pip install {WHEEL}=={WHEEL_VERSION}"
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"the embedded engine needs the {WHEEL} wheel: {wanted}")
    version = importlib.metadata.version(WHEEL)
    if version != WHEEL_VERSION:
        raise ConfigError(
            f"the embedded engine is bound to {WHEEL} {WHEEL_VERSION}, found {version}: {wanted}"
        )
    for folder in spec.submodule_search_locations:
        for path in sorted(Path(folder).glob(f"{WHEEL}*.so")):
            return path
    raise ConfigError(f"the {WHEEL} wheel has no shared object for this platform: {wanted}")


class Library:
    """The opened shared object, with its prototypes set and its struct layouts confirmed."""

    def __init__(self, path: Path, *, log: Callable[[str], None]) -> None:
        """Open ``path``. ``log`` gets the library's error lines; the rest is dropped.

        Raises ``ConfigError`` if a function is missing or a default is not the known one.
        """
        self.path = path
        self._muted = False
        try:
            # RTLD_GLOBAL is not needed and would let its copies of libstdc++ symbols leak out.
            self._dll = ctypes.CDLL(str(path))
            for name, (result, arguments) in _PROTOTYPES.items():
                function = getattr(self._dll, name)
                function.restype = result
                function.argtypes = arguments
        except (OSError, AttributeError) as error:
            raise ConfigError(
                f"{path.name} is not the {WHEEL} {WHEEL_VERSION} build: {error}"
            ) from None
        _check_defaults(
            "llama_model_params", self.blob("llama_model_default_params"), _MODEL_FIELDS
        )
        _check_defaults(
            "llama_context_params", self.blob("llama_context_default_params"), _CONTEXT_FIELDS
        )

        def on_log(level: int, text: bytes | None, _user_data: object) -> None:
            if level == _LOG_LEVEL_ERROR and text and not self._muted:
                log(text.decode(errors="replace").rstrip())

        # The library keeps the pointer: the callback must live as long as this object.
        self._log_callback = _LOG_CALLBACK(on_log)
        self.run("llama_log_set", self._log_callback, None)
        self.run("llama_backend_init")

    def mute(self) -> None:
        """Drop the error lines too, from here on: some quote what callers sent."""
        self._muted = True

    # Calls by result type: ctypes itself is untyped, so this is where values get their types.

    def run(self, name: str, *arguments: object) -> None:
        getattr(self._dll, name)(*arguments)

    def integer(self, name: str, *arguments: object) -> int:
        return int(getattr(self._dll, name)(*arguments))

    def truth(self, name: str, *arguments: object) -> bool:
        return bool(getattr(self._dll, name)(*arguments))

    def pointer(self, name: str, *arguments: object) -> int:
        """The returned address; 0 for null."""
        return int(getattr(self._dll, name)(*arguments) or 0)

    def text(self, name: str, *arguments: object) -> bytes:
        """The returned C string; empty for null."""
        return bytes(getattr(self._dll, name)(*arguments) or b"")

    def blob(self, name: str) -> _Blob:
        blob = getattr(self._dll, name)()
        if not isinstance(blob, _Blob):
            raise TypeError(f"{name} does not return a params struct")
        return blob

    def system_info(self) -> str:
        """The instruction sets this build uses on this machine, in the library's words."""
        return self.text("llama_print_system_info").decode(errors="replace").strip()


def _check_defaults(
    struct_name: str, blob: _Blob, fields: dict[str, tuple[int, str, int | float]]
) -> None:
    for name, (offset, code, default) in fields.items():
        (found,) = struct.unpack_from(f"<{code}", blob.raw, offset)
        if found != default:
            raise ConfigError(
                f"{struct_name}.{name} is {found} by default, {default} expected: this is not"
                f" {WHEEL} {WHEEL_VERSION}, whose layout the embedded engine is bound to"
            )


def _set(
    blob: _Blob, fields: dict[str, tuple[int, str, int | float]], values: dict[str, int]
) -> _Blob:
    for name, value in values.items():
        offset, code, _ = fields[name]
        struct.pack_into(f"<{code}", blob.raw, offset, value)
    return blob


class Model:
    """Loaded weights and their vocabulary. ``close`` frees them; contexts must go first."""

    def __init__(
        self,
        library: Library,
        path: Path,
        *,
        extra_buffers: bool = False,
        vocabulary_only: bool = False,
    ) -> None:
        """Map the weights at ``path`` into memory, or leave them where they are
        (``vocabulary_only``: no context can be made). Raises ``ConfigError`` if they do not load.
        """
        self.library = library
        params = _set(
            library.blob("llama_model_default_params"),
            _MODEL_FIELDS,
            {
                "n_gpu_layers": 0,
                "load_mode": _LOAD_MODE_MMAP,
                "use_extra_bufts": extra_buffers,
                "vocab_only": vocabulary_only,
            },
        )
        self.handle = library.pointer("llama_model_load_from_file", str(path).encode(), params)
        if not self.handle:
            raise ConfigError(f"the model file {path.name} does not load; is it complete?")
        self.vocab = library.pointer("llama_model_get_vocab", self.handle)
        self.vocabulary_size = library.integer("llama_vocab_n_tokens", self.vocab)
        self.context_tokens_trained = library.integer("llama_model_n_ctx_train", self.handle)

    def close(self) -> None:
        if self.handle:
            self.library.run("llama_model_free", self.handle)
            self.handle = 0

    def chat_template(self) -> str:
        """Jinja source from the file; empty if it has none."""
        return self.library.text("llama_model_chat_template", self.handle, None).decode()

    def metadata(self, key: str) -> str:
        """A metadata value as text; empty if absent."""
        buffer = ctypes.create_string_buffer(1 << 12)
        size = self.library.integer(
            "llama_model_meta_val_str", self.handle, key.encode(), buffer, len(buffer)
        )
        return buffer.value.decode(errors="replace") if size >= 0 else ""

    def end_tokens(self) -> tuple[int, ...]:
        """Tokens that end a turn, ascending."""
        return tuple(
            token
            for token in range(self.vocabulary_size)
            if self.library.truth("llama_vocab_is_eog", self.vocab, token)
        )

    def token_text(self, special: str) -> str:
        """How the ``bos`` or ``eos`` token is spelled; empty if the model has none."""
        token = self.library.integer(f"llama_vocab_{special}", self.vocab)
        if token < 0:
            return ""
        return self.library.text("llama_vocab_get_text", self.vocab, token).decode(errors="replace")

    def pieces(self) -> list[bytes]:
        """The bytes each token stands for, by id. Control tokens stand for none."""
        buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        pieces = []
        for token in range(self.vocabulary_size):
            size = self.library.integer(
                "llama_token_to_piece", self.vocab, token, buffer, _PIECE_BYTES, 0, False
            )
            if size < 0:
                raise ConfigError(f"token {token} stands for more than {_PIECE_BYTES} bytes")
            pieces.append(buffer.raw[:size])
        return pieces

    def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        """Token ids of ``text``, nothing added before or after.

        Raises ``RequestError`` beyond ``TEXT_BYTES_MAX``.
        """
        raw = text.encode(errors="replace")
        if len(raw) > TEXT_BYTES_MAX:
            raise RequestError(
                f"{len(raw)} bytes of text, at most {TEXT_BYTES_MAX} are tokenised",
                code="text_too_long",
            )
        room = len(raw) + 8
        out = np.empty(room, dtype=np.int32)
        count = self.library.integer(
            "llama_tokenize",
            self.vocab,
            raw,
            len(raw),
            out.ctypes.data,
            room,
            False,
            parse_special,
        )
        if count < 0:
            raise UpstreamError("the tokeniser overran its buffer", code="engine_fault")
        return tuple(out[:count].tolist())


class Context:
    """Working memory for a number of sequences, and the one call that fills it.

    ``decode`` computes exactly one micro-batch per call: the library is never left to split one,
    because how it splits decides which kernels run, and so the bits of the logits.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        self.model = model
        self.settings = settings
        library = model.library
        self._library = library
        params = _set(
            library.blob("llama_context_default_params"),
            _CONTEXT_FIELDS,
            {
                "n_ctx": settings.context_tokens * settings.sequences,
                "n_batch": settings.ubatch_tokens,
                "n_ubatch": settings.ubatch_tokens,
                "n_seq_max": settings.sequences,
                "n_threads": settings.threads,
                "n_threads_batch": settings.threads,
                "flash_attn_type": _FLASH_ATTENTION[settings.flash_attention],
                "type_k": CACHE_TYPE[settings.cache_type],
                "type_v": CACHE_TYPE[settings.cache_type],
                "offload_kqv": False,
                "op_offload": False,
                "kv_unified": settings.unified_cache,
            },
        )
        self._handle = library.pointer("llama_init_from_model", model.handle, params)
        if not self._handle:
            raise ConfigError("the engine's context could not be made: out of memory?")
        self._memory = library.pointer("llama_get_memory", self._handle)
        size = settings.ubatch_tokens
        self._token = np.zeros(size, dtype=np.int32)
        self._position = np.zeros(size, dtype=np.int32)
        self._counts = np.ones(size, dtype=np.int32)
        self._sequence = np.zeros(size, dtype=np.int32)
        self._output = np.zeros(size, dtype=np.int8)
        base, step = self._sequence.ctypes.data, self._sequence.itemsize
        self._sequence_pointers = np.array([base + i * step for i in range(size)], dtype=np.uint64)
        self._batch = _Batch(
            n_tokens=0,
            token=self._token.ctypes.data,
            embd=None,
            pos=self._position.ctypes.data,
            n_seq_id=self._counts.ctypes.data,
            seq_id=self._sequence_pointers.ctypes.data,
            logits=self._output.ctypes.data,
        )

    def close(self) -> None:
        if self._handle:
            self._library.run("llama_free", self._handle)
            self._handle = 0

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        outputs: Sequence[bool],
    ) -> None:
        """Compute one micro-batch. The four arguments are parallel, one item a token.

        Every sequence in it must have the same number of tokens, or the library would split it.
        Raises ``UpstreamError`` when the library reports a fault.
        """
        count = len(tokens)
        if not 1 <= count <= self.settings.ubatch_tokens:
            raise CorruptStateError(f"a micro-batch of {count} tokens")
        self._token[:count] = tokens
        self._position[:count] = positions
        self._sequence[:count] = sequences
        self._output[:count] = outputs
        self._batch.n_tokens = count
        result = self._library.integer("llama_decode", self._handle, self._batch)
        if result != 0:
            raise UpstreamError(f"llama_decode returned {result}", code="engine_fault")

    def logits(self, index: int) -> NDArray[np.float32]:
        """The logits after the token at ``index`` of the last micro-batch; it must be an output.

        Shape (vocabulary,). A view of the library's buffer: valid until the next ``decode``.
        """
        address = self._library.pointer("llama_get_logits_ith", self._handle, index)
        if not address:
            raise CorruptStateError(f"no logits were kept for token {index} of the micro-batch")
        row = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(row, shape=(self.model.vocabulary_size,))

    def forget(self, sequence: int, from_position: int) -> None:
        """Drop ``sequence``'s cache from ``from_position`` on."""
        if not self._library.truth(
            "llama_memory_seq_rm", self._memory, sequence, from_position, -1
        ):
            raise UpstreamError("the cache could not be trimmed", code="engine_fault")

    def copy(self, source: int, target: int) -> None:
        """Put a copy of ``source``'s cache, bit for bit, in the place of ``target``'s.

        Not by ``llama_memory_seq_cp``: with a cache per sequence it copies all of its room, used or
        not. Takes as much memory meanwhile as ``source`` uses, at most a sequence's.
        """
        self._put(target, self._saved(source))

    def swap(self, one: int, other: int) -> None:
        """Let two sequences change places."""
        saved = self._saved(one)
        self.copy(other, one)
        self._put(other, saved)

    def _saved(self, sequence: int) -> NDArray[np.uint8]:
        size = self._library.integer("llama_state_seq_get_size", self._handle, sequence)
        state = np.empty(size, dtype=np.uint8)
        written = self._library.integer(
            "llama_state_seq_get_data", self._handle, state.ctypes.data, size, sequence
        )
        if written != size:
            raise UpstreamError("the cache could not be read", code="engine_fault")
        return state

    def _put(self, sequence: int, state: NDArray[np.uint8]) -> None:
        # A state without a token is read as nothing to do: what was there would stay.
        self.forget(sequence, 0)
        read = self._library.integer(
            "llama_state_seq_set_data", self._handle, state.ctypes.data, state.size, sequence
        )
        if read != state.size:
            raise UpstreamError("the cache could not be copied", code="engine_fault")

    def length(self, sequence: int) -> int:
        """Positions held for ``sequence``."""
        return self._library.integer("llama_memory_seq_pos_max", self._memory, sequence) + 1


class Grammar:
    """A GBNF grammar and how far into it the text so far has come."""

    def __init__(self, model: Model, source: str) -> None:
        """Raises ``RequestError`` (``invalid_grammar``) for a grammar that does not parse."""
        self._library = model.library
        raw = source.encode()
        if len(raw) > GRAMMAR_BYTES_MAX or b"\0" in raw:
            raise RequestError(
                f"a grammar of {len(raw)} bytes; at most {GRAMMAR_BYTES_MAX}, without NUL",
                code="invalid_grammar",
                param="grammar",
            )
        self._handle = self._library.pointer(
            "llama_sampler_init_grammar", model.vocab, raw, b"root"
        )
        if not self._handle:
            raise RequestError(
                "the grammar does not parse as GBNF with a rule named root",
                code="invalid_grammar",
                param="grammar",
            )

    def close(self) -> None:
        if self._handle:
            self._library.run("llama_sampler_free", self._handle)
            self._handle = 0

    def admitted(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of ``tokens`` may come next. Shape as given. End-of-turn tokens are admitted
        exactly when the text so far is a complete document."""
        data = np.zeros(len(tokens), dtype=[("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
        data["id"] = tokens
        array = _TokenDataArray(
            data=ctypes.cast(data.ctypes.data, ctypes.POINTER(_TokenData)),
            size=len(tokens),
            selected=-1,
            sorted=False,
        )
        self._library.run("llama_sampler_apply", self._handle, ctypes.byref(array))
        admitted: NDArray[np.bool_] = np.isfinite(data["logit"])
        return admitted

    def accept(self, token: int) -> None:
        """Advance over ``token``, which must have been admitted: the library aborts otherwise."""
        self._library.run("llama_sampler_accept", self._handle, token)
