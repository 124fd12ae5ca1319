"""The browser's verifier has the bounds of the Python one: it is another language, and can import
none of them."""

import json
import re
from math import prod

from tests.browser.cases import REPOSITORY

from trunkline.crypto import canonical, encoding, keys, merkle, note
from trunkline.evidence import checkpoints, content, file, operators, report, response, text
from trunkline.evidence.verify import TITLES
from trunkline.receipts import batch, key_statement, receipt
from trunkline.schema import sse
from trunkline.tlog import checkpoint, policy, proof
from trunkline.verdicts import record, verdict

MODULE = (REPOSITORY / "web" / "trunkline-verify.mjs").read_text()

BOUNDS = {
    "BATCH_NOTE_BYTES_MAX": batch.BATCH_NOTE_BYTES_MAX,
    "BATCH_PATH_HASHES_MAX": batch.PATH_HASHES_MAX,
    "BATCH_RECEIPTS_MAX": batch.BATCH_RECEIPTS_MAX,
    "CHECKS_MAX": verdict.CHECKS_MAX,
    "CHECKPOINT_BYTES_MAX": checkpoint.CHECKPOINT_BYTES_MAX,
    "DEFINITIONS_MAX": policy.DEFINITIONS_MAX,
    "DEPTH_MAX": canonical.DEPTH_MAX,
    "EVIDENCE_BYTES_MAX": file.EVIDENCE_BYTES_MAX,
    "FILE_STATEMENTS_MAX": operators.FILE_STATEMENTS_MAX,
    "KEYS_BYTES_MAX": file.KEYS_BYTES_MAX,
    "KEYS_MAX": file.KEYS_MAX,
    "ML_DSA_CHECKS_MAX": checkpoints.ML_DSA_CHECKS_MAX,
    "NAME_BYTES_MAX": keys.NAME_BYTES_MAX,
    "NAME_CHARS_MAX": keys.NAME_BYTES_MAX,
    "NOTE_BYTES_MAX": note.NOTE_BYTES_MAX,
    "PARTS_MAX": file.PARTS_MAX,
    "POLICY_BYTES_MAX": policy.POLICY_BYTES_MAX,
    "PROOF_BYTES_MAX": proof.PROOF_BYTES_MAX,
    "PROOF_HASHES_MAX": merkle.PROOF_HASHES_MAX,
    "RECEIPT_BYTES_MAX": receipt.RECEIPT_BYTES_MAX,
    "RESPONSE_BYTES_MAX": response.RESPONSE_BYTES_MAX,
    "SAID_CHARS_MAX": record.TEXT_CHARS_MAX,
    "SALTS_MAX": file.SALTS_MAX,
    "SIGNATURES_MAX": note.SIGNATURES_MAX,
    "SIGNATURE_LINE_BYTES_MAX": record.SIGNATURE_LINE_BYTES_MAX,
    "SSE_FIELDS_MAX": sse.FIELDS_MAX,
    "STATEMENTS_MAX": file.STATEMENTS_MAX,
    "STATEMENT_NOTE_BYTES_MAX": key_statement.STATEMENT_NOTE_BYTES_MAX,
    "TEXT_CHARS_MAX": report.TEXT_CHARS_MAX,
    "VALUES_MAX": text.VALUES_MAX,
    "VERDICTS_MAX": file.VERDICTS_MAX,
    "VERDICT_NOTE_BYTES_MAX": verdict.Verdict.NOTE_BYTES_MAX,
    "VKEY_CHARS_MAX": keys.VKEY_CHARS_MAX,
}


def test_every_bound_is_pythons():
    written = dict(re.findall(r"^(?:export )?const (\w+_MAX) = (.+);$", MODULE, re.MULTILINE))
    assert written.pop("UINT63_MAX") == "2n ** 63n - 1n"
    assert encoding.UINT63_MAX == 2**63 - 1
    products = {name: one.replace("_", "").split(" * ") for name, one in written.items()}
    bounds = {
        name: prod(int(factor.removesuffix("n")) for factor in factors)
        for name, factors in products.items()
    }
    assert bounds == BOUNDS


def test_titles_and_verbatim_formats_are_pythons():
    titles = re.search(r"TITLES = Object\.freeze\((\[.*?\])\)", MODULE, re.DOTALL)
    formats = re.search(r"VERBATIM = new Set\((\[.*?\])\)", MODULE)
    assert titles is not None
    assert formats is not None
    assert json.loads(titles[1].replace(",\n]", "]")) == list(TITLES)
    assert set(json.loads(formats[1])) == content.VERBATIM
