"""Receipts: a node's signed statement about one attempt. Pure: no I/O, no clock, no keys.

Specified in ``docs/spec/receipt.md``. It refuses to sign and to judge: signing is the node's, and
whether a receipt is true is the verifier's question.
"""

from trunkline.receipts.batch import (
    BATCH_RECEIPTS_MAX,
    Batch,
    BatchBuilder,
    SealedBatch,
    VerifiedReceipt,
    batch_text,
    open_batch,
    verify_signed,
)
from trunkline.receipts.digests import (
    prefix_digest,
    prompt_digest,
    request_digest,
    tokens_digest,
)
from trunkline.receipts.hiding import (
    BLINDING_BYTES,
    ITEMS,
    REQUEST_ITEMS,
    RESPONSE_ITEMS,
    Hiding,
    Item,
    binds,
    bound,
    bound_bytes,
    salts,
)
from trunkline.receipts.receipt import (
    RECEIPT_BYTES_MAX,
    RECEIPT_TYPE,
    Receipt,
    ReceiptAttempt,
    ReceiptModel,
    ReceiptPolicy,
    ReceiptRequest,
    ReceiptResponse,
    ReceiptSampling,
    ReceiptTimes,
    ReceiptUsage,
    decode,
    encode,
    receipt_leaf,
)
from trunkline.receipts.stream import ShownDigest, StreamDigest, stream_digest

__all__ = [
    "BATCH_RECEIPTS_MAX",
    "BLINDING_BYTES",
    "ITEMS",
    "RECEIPT_BYTES_MAX",
    "RECEIPT_TYPE",
    "REQUEST_ITEMS",
    "RESPONSE_ITEMS",
    "Batch",
    "BatchBuilder",
    "Hiding",
    "Item",
    "Receipt",
    "ReceiptAttempt",
    "ReceiptModel",
    "ReceiptPolicy",
    "ReceiptRequest",
    "ReceiptResponse",
    "ReceiptSampling",
    "ReceiptTimes",
    "ReceiptUsage",
    "SealedBatch",
    "ShownDigest",
    "StreamDigest",
    "VerifiedReceipt",
    "batch_text",
    "binds",
    "bound",
    "bound_bytes",
    "decode",
    "encode",
    "open_batch",
    "prefix_digest",
    "prompt_digest",
    "receipt_leaf",
    "request_digest",
    "salts",
    "stream_digest",
    "tokens_digest",
    "verify_signed",
]
