/**
 * The same checks for Node and for Chromium: cases in, plain JSON out.
 *
 * As a program: `node run.mjs < cases.json > results.json`. A case has base64 fields, as evidence
 * need not be text.
 */

import * as subject from "../../web/trunkline-verify.mjs";

const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const orNull = (text) => (text === null ? null : bytes(text));

async function verifyCase(item) {
  const report = await subject.verify(bytes(item.evidence), {
    policy: item.policy,
    trustedKeys: item.trusted_keys,
    request: orNull(item.request),
    response: orNull(item.response),
  });
  return { outcome: report.outcome, state: report.state, answer: report.answer, steps: report.steps };
}

/** Whether `call` is refused with one of the module's own errors. */
async function refuses(call) {
  try {
    await call();
    return false;
  } catch (error) {
    return error instanceof subject.MalformedError;
  }
}

async function receiptVectors(vectors) {
  const { vkey, note, receipts } = vectors.batch;
  const batch = await subject.openBatch(note, await subject.parseVkey(vkey));
  for (const [index, { receipt, path }] of receipts.entries()) {
    subject.parseReceipt(receipt);
    await subject.verifyReceiptPath(receipt, index, path, batch);
  }
  const encoder = new TextEncoder();
  const streams = vectors.stream.map(({ attempt, chunks }) =>
    subject.streamDigest(
      vectors.request.digest,
      attempt,
      chunks.map((chunk) => encoder.encode(chunk)),
    ),
  );
  const { counted } = vectors;
  const key = await subject.parseVkey(vkey);
  return {
    counted: String((await subject.openBatch(counted.note, key)).audited),
    uncounted: await Promise.all(
      counted.refused.map((text) => refuses(() => subject.openBatch(text, key))),
    ),
    count: String(batch.count),
    request: await subject.requestDigest(encoder.encode(vectors.request.body)),
    streams: await Promise.all(streams),
    refused: await Promise.all(
      vectors.not_canonical.map((text) => refuses(() => subject.parseCanonical(text))),
    ),
  };
}

/** Which of the signatures of docs/spec/ed25519-vectors.json are taken. */
async function ed25519Vectors(vectors) {
  const hex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
  return Promise.all(
    vectors.cases.map((item) =>
      subject.verifyEd25519(hex(item.public), hex(item.signature), hex(item.message)),
    ),
  );
}

/** Which of the ML-DSA-44 signatures are taken as they are, and which with one bit flipped. */
function mlDsaSignatures(items) {
  return items.map((item) => {
    const taken = (name = null, place = 0) => {
      const values = {};
      for (const one of ["public", "signature", "message"]) {
        values[one] = bytes(item[one]);
        if (one === name) values[one][place >> 3] ^= 1 << (place & 7);
      }
      return subject.verifyMlDsa44(values.public, values.signature, values.message);
    };
    return { valid: taken(), flips: item.flips.map(([name, place]) => taken(name, place)) };
  });
}

export async function verifyCases(cases) {
  const results = [];
  for (const item of cases) results.push(await verifyCase(item));
  return results;
}

/** Everything but the cases. */
export async function run({ policies, receipts, ed25519, ml_dsa }) {
  const refused = policies.map((policy) => refuses(() => subject.parsePolicy(policy)));
  return {
    ed25519: await subject.hasEd25519(),
    signatures: await ed25519Vectors(ed25519),
    ml_dsa: mlDsaSignatures(ml_dsa),
    policies: await Promise.all(refused),
    receipts: await receiptVectors(receipts),
  };
}

/** What a browser without Ed25519 makes of a case. */
export async function withoutEd25519(item) {
  const real = crypto.subtle.importKey;
  SubtleCrypto.prototype.importKey = async () => {
    throw new DOMException("Unrecognized name.", "NotSupportedError");
  };
  try {
    return await verifyCase(item);
  } finally {
    SubtleCrypto.prototype.importKey = real;
  }
}

if (globalThis.process?.argv?.[1]?.endsWith("run.mjs")) {
  let input = "";
  for await (const piece of process.stdin) input += piece;
  const work = JSON.parse(input);
  const results = await run(work);
  results.cases = await verifyCases(work.cases);
  results.without = await withoutEd25519(work.cases[0]);
  process.stdout.write(JSON.stringify(results));
}
