/**
 * Verifies a Trunkline evidence file where you are: in a browser or in Node 20, asking nobody.
 *
 * The steps, their results and what they add up to are those of docs/spec/evidence.md; receipts,
 * batches and digests those of docs/spec/receipt.md; verdicts those of docs/spec/verdict.md; notes,
 * checkpoints, cosignatures, proofs and policies those of C2SP. It uses WebCrypto and nothing else:
 * no imports, no network, no storage. ML-DSA-44, which WebCrypto does not have, is worked out here.
 *
 * One long file, because a page that verifies is to copy one thing, and to know that it is all of it.
 * From top to bottom: bounds, bytes, the two kinds of signature, notes, trees, records, the steps in
 * their order, and last `verify`.
 *
 * It refuses to guess: what is not shown is `inconclusive`, also where this browser lacks Ed25519.
 *
 *     import { verify } from "./trunkline-verify.mjs";
 *     const report = await verify(bytes, { policy, trustedKeys });
 */

export const EVIDENCE_TYPE = "trunkline.evidence/v1";
export const EVIDENCE_BYTES_MAX = 64 * 1024 * 1024;
export const TITLES = Object.freeze([
  "file",
  "receipts",
  "node keys",
  "signatures",
  "batch paths",
  "request",
  "response",
  "parts",
  "policy",
  "log",
  "witnesses",
  "inclusion",
  "key validity",
  "verdicts",
]);

const KEYS_BYTES_MAX = 1024 * 1024;
const PARTS_MAX = 64;
const KEYS_MAX = 1024;
const SALTS_MAX = 32;
const STATEMENTS_MAX = 256;
// Of one operator, that are looked at in a file: as many as 64 nodes show with 64 each.
const FILE_STATEMENTS_MAX = 4096;
const STATEMENT_NOTE_BYTES_MAX = 8 * 1024;
const VERDICTS_MAX = 64;
const VERDICT_NOTE_BYTES_MAX = 32 * 1024;
const SIGNATURE_LINE_BYTES_MAX = 512;
const CHECKS_MAX = 64;
const NAME_BYTES_MAX = 255;
const NAME_CHARS_MAX = 255;
const VKEY_CHARS_MAX = 2048;
const SAID_CHARS_MAX = 512;
const RECEIPT_BYTES_MAX = 256 * 1024;
const RESPONSE_BYTES_MAX = 64 * 1024 * 1024;
const VERBATIM = new Set(["openai.chat", "openai.embeddings"]);
const DEPTH_MAX = 16;
const VALUES_MAX = 1_048_576;
const BATCH_RECEIPTS_MAX = 64n;
const BATCH_NOTE_BYTES_MAX = 8 * 1024;
const BATCH_PATH_HASHES_MAX = 6;
const NOTE_BYTES_MAX = 1_000_000;
const SIGNATURES_MAX = 100;
const CHECKPOINT_BYTES_MAX = 64 * 1024;
const PROOF_BYTES_MAX = 2 * 1024 * 1024;
const PROOF_HASHES_MAX = 63;
const POLICY_BYTES_MAX = 256 * 1024;
const DEFINITIONS_MAX = 256;
// Of a file: 32 checkpoints, each with as many witnesses as tlog-policy asks readers to take.
const ML_DSA_CHECKS_MAX = 1024;
const TOO_MANY = "its file has more ML-DSA-44 signatures than are checked";
const SSE_FIELDS_MAX = 32;
const TEXT_CHARS_MAX = 160;
const UINT63_MAX = 2n ** 63n - 1n;

const ED25519 = 0x01;
const COSIGNATURE_ED25519 = 0x04;
const COSIGNATURE_ML_DSA_44 = 0x06;
const PUBLIC_KEY_BYTES = new Map([
  [ED25519, 32],
  [COSIGNATURE_ED25519, 32],
  [COSIGNATURE_ML_DSA_44, 1312],
]);
const SIGNATURE_BYTES = new Map([
  [ED25519, 64],
  [COSIGNATURE_ED25519, 64],
  [COSIGNATURE_ML_DSA_44, 2420],
]);
const TIMESTAMP_BYTES = 8;

/** What was read is not what its format says. */
export class MalformedError extends Error {}
/** A signature is missing, or does not verify. */
export class SignatureError extends Error {}
/** Too few witnesses cosigned. */
export class QuorumError extends Error {}
/** A Merkle path does not lead to the root. */
export class InclusionError extends Error {}
/** The browser can not check this kind of signature: nothing is shown either way. */
export class UnsupportedError extends Error {}

const REFUSALS = [MalformedError, SignatureError, QuorumError, InclusionError];

/** The error, if it says what is wrong with the evidence. A bug is thrown on. */
function refusal(error) {
  if (REFUSALS.some((kind) => error instanceof kind)) return error;
  throw error;
}

function demand(condition, message, Kind = MalformedError) {
  if (!condition) throw new Kind(message);
}

// Bytes and their spellings

const encoder = new TextEncoder();
// A byte order mark is a byte like any other here: it may not be dropped from what was signed.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const LONE_SURROGATE = /[\uD800-\uDBFF](?![\uDC00-\uDFFF])|(?<![\uD800-\uDBFF])[\uDC00-\uDFFF]/;

/** UTF-8. TextEncoder alone would put a replacement where a surrogate stands alone. */
function utf8(text, message = "text that is not Unicode") {
  demand(!LONE_SURROGATE.test(text), message);
  return encoder.encode(text);
}

function fromUtf8(bytes, message) {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new MalformedError(message);
  }
}

function concat(...pieces) {
  const joined = new Uint8Array(pieces.reduce((size, piece) => size + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

function equal(left, right) {
  return left.length === right.length && left.every((byte, at) => byte === right[at]);
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function fromHex(text) {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

function bigEndian(number, size) {
  const bytes = new Uint8Array(size);
  let rest = BigInt(number);
  for (let at = size - 1; at >= 0; at -= 1) {
    bytes[at] = Number(rest & 0xffn);
    rest >>= 8n;
  }
  return bytes;
}

function littleEndian(bytes) {
  return bytes.reduceRight((number, byte) => (number << 8n) | BigInt(byte), 0n);
}

/** Standard base64 with padding, in its one spelling. */
function decodeBase64(text) {
  let binary;
  try {
    binary = atob(text);
  } catch {
    throw new MalformedError("not base64");
  }
  demand(btoa(binary) === text, "not canonical base64");
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

function decodeHash(text) {
  const bytes = decodeBase64(text);
  demand(bytes.length === 32, "a hash is 32 bytes");
  return bytes;
}

/** ASCII decimal up to 2^63-1 without leading zeroes, as a BigInt: sizes outgrow doubles. */
function decodeDecimal(text) {
  demand(/^(?:0|[1-9][0-9]{0,18})$/.test(text), "not a decimal number");
  const value = BigInt(text);
  demand(value <= UINT63_MAX, "number too large");
  return value;
}

async function sha256(...pieces) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", concat(...pieces)));
}

/** Text from outside, safe to show: short, and without anything that steers a reader. */
function plain(text) {
  const escape = (character) => `\\u{${character.codePointAt(0).toString(16)}}`;
  const shown = text.replace(/[^\x20-\x7e]/gu, escape);
  return shown.length <= TEXT_CHARS_MAX ? shown : `${shown.slice(0, TEXT_CHARS_MAX)}…`;
}

// Ed25519

const FIELD = 2n ** 255n - 19n;
const GROUP_ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const SIGN_BIT = 2n ** 255n;
// The y coordinates of the eight points of small order: each of them is one's, or two's.
const SMALL_ORDER = new Set([
  0n,
  1n,
  FIELD - 1n,
  littleEndian(fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")),
  littleEndian(fromHex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")),
]);

/** Whether a point is spelled canonically, and of none of the small orders. */
function isProperPoint(bytes) {
  const y = littleEndian(bytes) % SIGN_BIT;
  return y < FIELD && !SMALL_ORDER.has(y);
}

/** Whether this browser's WebCrypto has Ed25519. */
export async function hasEd25519() {
  try {
    // The base point: a key like any other.
    const point = fromHex("58" + "66".repeat(31));
    await crypto.subtle.importKey("raw", point, { name: "Ed25519" }, false, ["verify"]);
    return true;
  } catch {
    return false;
  }
}

/**
 * Whether the key made the signature, by docs/spec/ed25519.md: what implementations of WebCrypto
 * may differ about is refused before they are asked.
 */
export async function verifyEd25519(publicKey, signature, message) {
  if (!(await hasEd25519())) {
    throw new UnsupportedError("not checked: this browser can not verify Ed25519 signatures");
  }
  if (publicKey.length !== 32 || signature.length !== 64) return false;
  if (littleEndian(signature.slice(32)) >= GROUP_ORDER) return false;
  if (!isProperPoint(publicKey) || !isProperPoint(signature.slice(0, 32))) return false;
  try {
    const algorithm = { name: "Ed25519" };
    const key = await crypto.subtle.importKey("raw", publicKey, algorithm, false, ["verify"]);
    return await crypto.subtle.verify(algorithm, key, signature, message);
  } catch {
    // The key is no point of the curve.
    return false;
  }
}

// SHAKE (FIPS 202), of which ML-DSA is made and which WebCrypto does not have

const KECCAK_ROUNDS = 24;
// The bytes of a block, and so which SHAKE it is.
const SHAKE128_RATE = 168;
const SHAKE256_RATE = 136;

/** Which lane each step of ρ and π moves its lane to, and by how many bits it turns it. */
const [LANES, TURNS] = (() => {
  const [lanes, turns] = [[], []];
  for (let step = 0, x = 1, y = 0; step < 24; step += 1) {
    [x, y] = [y, (2 * x + 3 * y) % 5];
    lanes.push(x + 5 * y);
    turns.push((((step + 1) * (step + 2)) / 2) % 64);
  }
  return [lanes, turns];
})();

/** What ι adds in each round: bits of a shift register, at places 2^n - 1. Low half, high half. */
const ROUND_CONSTANTS = (() => {
  const halves = new Uint32Array(2 * KECCAK_ROUNDS);
  let register = 1;
  for (let round = 0; round < KECCAK_ROUNDS; round += 1) {
    for (let n = 0; n < 7; n += 1) {
      const place = 2 ** n - 1;
      halves[2 * round + (place >> 5)] |= (register & 1) << (place & 31);
      register = (register << 1) ^ (register >> 7 ? 0x171 : 0);
    }
  }
  return halves;
})();

/** Keccak-f[1600], in place. 25 lanes as 50 numbers of 32 bits, the low half of each lane first. */
function keccak(state) {
  const columns = new Uint32Array(10);
  const row = new Uint32Array(10);
  for (let round = 0; round < KECCAK_ROUNDS; round += 1) {
    // θ
    for (let x = 0; x < 10; x += 1) {
      columns[x] = state[x] ^ state[x + 10] ^ state[x + 20] ^ state[x + 30] ^ state[x + 40];
    }
    for (let x = 0; x < 10; x += 2) {
      const left = (x + 8) % 10;
      const right = (x + 2) % 10;
      const low = columns[left] ^ ((columns[right] << 1) | (columns[right + 1] >>> 31));
      const high = columns[left + 1] ^ ((columns[right + 1] << 1) | (columns[right] >>> 31));
      for (let at = x; at < 50; at += 10) {
        state[at] ^= low;
        state[at + 1] ^= high;
      }
    }
    // ρ and π: each lane goes, turned, where the next one was.
    let low = state[2];
    let high = state[3];
    for (let step = 0; step < 24; step += 1) {
      const at = 2 * LANES[step];
      const bits = TURNS[step] & 31;
      // No turn is by 0 or 32 bits, where a shift by 32 would be one by 0.
      const turnedLow = (low << bits) | (high >>> (32 - bits));
      const turnedHigh = (high << bits) | (low >>> (32 - bits));
      low = state[at];
      high = state[at + 1];
      state[at] = TURNS[step] < 32 ? turnedLow : turnedHigh;
      state[at + 1] = TURNS[step] < 32 ? turnedHigh : turnedLow;
    }
    // χ
    for (let y = 0; y < 50; y += 10) {
      for (let x = 0; x < 10; x += 1) row[x] = state[y + x];
      for (let x = 0; x < 10; x += 1) {
        state[y + x] = row[x] ^ (~row[(x + 2) % 10] & row[(x + 4) % 10]);
      }
    }
    // ι
    state[0] ^= ROUND_CONSTANTS[2 * round];
    state[1] ^= ROUND_CONSTANTS[2 * round + 1];
  }
}

/** The SHAKE of the pieces: its blocks, without end. */
function* shake(rate, ...pieces) {
  const input = concat(...pieces);
  const padded = new Uint8Array((Math.floor(input.length / rate) + 1) * rate);
  padded.set(input);
  padded[input.length] = 0x1f;
  padded[padded.length - 1] |= 0x80;
  const words = new DataView(padded.buffer);
  const state = new Uint32Array(50);
  for (let from = 0; from < padded.length; from += rate) {
    for (let at = 0; at < rate; at += 4) state[at / 4] ^= words.getUint32(from + at, true);
    keccak(state);
  }
  for (;;) {
    const block = new DataView(new ArrayBuffer(rate));
    for (let at = 0; at < rate; at += 4) block.setUint32(at, state[at / 4], true);
    yield new Uint8Array(block.buffer);
    keccak(state);
  }
}

/** The first `size` bytes of SHAKE256, at most a block: what FIPS 204 calls H. */
function shake256(size, ...pieces) {
  return shake(SHAKE256_RATE, ...pieces).next().value.slice(0, size);
}

// ML-DSA-44 (FIPS 204), verifying only: nothing here is secret, so nothing need take equal time

const ML_DSA_Q = 8_380_417;
const ML_DSA_DEGREE = 256;
// The matrix has as many rows as columns: k = l.
const ML_DSA_ROWS = 4;
const ML_DSA_ONES = 39;
const ML_DSA_HINTS = 80;
const ML_DSA_GAMMA_1 = 2 ** 17;
// 2 gamma_2: how many numbers have one high part.
const ML_DSA_STEP = 190_464;
const ML_DSA_STEPS = 44;
const ML_DSA_BETA = 78;
const ML_DSA_DROPPED_BITS = 13;
const ML_DSA_CHALLENGE_BYTES = 32;
const [T1_BITS, Z_BITS, W1_BITS] = [10, 18, 6];

// Products of two numbers below q are below 2^46: exact in a double.
const modQ = (number) => ((number % ML_DSA_Q) + ML_DSA_Q) % ML_DSA_Q;

/** 1753 to the power of each of 0 to 255 with its eight bits reversed. */
const ZETAS = (() => {
  const powers = [1];
  while (powers.length < ML_DSA_DEGREE) powers.push((powers.at(-1) * 1753) % ML_DSA_Q);
  const bits = (number) => number.toString(2).padStart(8, "0");
  const reversed = (number) => parseInt([...bits(number)].reverse().join(""), 2);
  return Int32Array.from(powers, (_, at) => powers[reversed(at)]);
})();
const INVERSE_256 = 8_347_681;

/** Polynomial to values, in place (algorithm 41). Coefficients here are from 0 to q - 1. */
function ntt(values) {
  let at = 0;
  for (let half = 128; half > 0; half >>= 1) {
    for (let start = 0; start < ML_DSA_DEGREE; start += 2 * half) {
      const zeta = ZETAS[(at += 1)];
      for (let low = start; low < start + half; low += 1) {
        const turned = (zeta * values[low + half]) % ML_DSA_Q;
        values[low + half] = modQ(values[low] - turned);
        values[low] = modQ(values[low] + turned);
      }
    }
  }
  return values;
}

/** Values, which it uses up, to polynomial (algorithm 42). */
function inverseNtt(values) {
  let at = ML_DSA_DEGREE;
  for (let half = 1; half < ML_DSA_DEGREE; half <<= 1) {
    for (let start = 0; start < ML_DSA_DEGREE; start += 2 * half) {
      const zeta = ZETAS[(at -= 1)];
      for (let low = start; low < start + half; low += 1) {
        const [left, right] = [values[low], values[low + half]];
        values[low] = modQ(left + right);
        values[low + half] = modQ(zeta * (right - left));
      }
    }
  }
  return values.map((value) => (value * INVERSE_256) % ML_DSA_Q);
}

/** 256 numbers of `bits` bits each, the lowest bit first (algorithm 18). */
function unpackBits(bytes, bits) {
  const numbers = new Int32Array(ML_DSA_DEGREE);
  let [held, size, at] = [0, 0, 0];
  for (let number = 0; number < ML_DSA_DEGREE; number += 1) {
    for (; size < bits; size += 8) held |= bytes[at++] << size;
    numbers[number] = held & (2 ** bits - 1);
    held >>>= bits;
    size -= bits;
  }
  return numbers;
}

/** The other way round (algorithm 16). */
function packBits(numbers, bits) {
  const bytes = new Uint8Array((numbers.length * bits) / 8);
  let [held, size, at] = [0, 0, 0];
  for (const number of numbers) {
    held |= number << size;
    for (size += bits; size >= 8; size -= 8) {
      bytes[at++] = held;
      held >>>= 8;
    }
  }
  return bytes;
}

/** As many pieces as the matrix has rows, each of `size` bytes. */
function rowsOf(bytes, size) {
  return Array.from({ length: ML_DSA_ROWS }, (_, row) => bytes.slice(row * size, (row + 1) * size));
}

/** Where the hints are, row by row; null unless spelled in the one way (algorithm 21). */
function unpackHints(bytes) {
  const places = bytes.slice(0, ML_DSA_HINTS);
  let from = 0;
  const rows = [];
  for (const to of bytes.slice(ML_DSA_HINTS)) {
    if (to < from || to > ML_DSA_HINTS) return null;
    const row = places.slice(from, to);
    if (row.some((place, at) => at > 0 && place <= row[at - 1])) return null;
    rows.push(new Set(row));
    from = to;
  }
  return places.slice(from).every((place) => place === 0) ? rows : null;
}

/** One entry of the matrix that the key's seed stands for, as values (algorithm 30). */
function matrixEntry(seed, row, column) {
  const values = new Int32Array(ML_DSA_DEGREE);
  let count = 0;
  for (const block of shake(SHAKE128_RATE, seed, [column, row])) {
    for (let at = 0; at < block.length && count < ML_DSA_DEGREE; at += 3) {
      const value = block[at] | (block[at + 1] << 8) | ((block[at + 2] & 0x7f) << 16);
      // One number in a thousand is too large, and left out.
      if (value < ML_DSA_Q) values[count++] = value;
    }
    if (count === ML_DSA_DEGREE) return values;
  }
}

/** The challenge: 39 coefficients of 1 or -1, the others 0 (algorithm 29). */
function sampleInBall(seed) {
  const challenge = new Int32Array(ML_DSA_DEGREE);
  const blocks = shake(SHAKE256_RATE, seed);
  let block = blocks.next().value;
  const signs = littleEndian(block.slice(0, 8));
  let at = 8;
  for (let place = ML_DSA_DEGREE - ML_DSA_ONES; place < ML_DSA_DEGREE; place += 1) {
    let other;
    do {
      if (at === block.length) [block, at] = [blocks.next().value, 0];
      other = block[at++];
    } while (other > place);
    challenge[place] = challenge[other];
    const sign = (signs >> BigInt(place + ML_DSA_ONES - ML_DSA_DEGREE)) & 1n;
    challenge[other] = sign === 1n ? ML_DSA_Q - 1 : 1;
  }
  return challenge;
}

/** A coefficient's high part, 0 to 43; with a hint, the next one up or down (algorithm 40). */
function useHint(isHinted, value) {
  let low = value % ML_DSA_STEP;
  if (low > ML_DSA_STEP / 2) low -= ML_DSA_STEP;
  let high = (value - low) / ML_DSA_STEP;
  // The numbers just below q have the high part of 0.
  if (high === ML_DSA_STEPS) [high, low] = [0, low - 1];
  const hint = low > 0 ? 1 : -1;
  return isHinted ? (high + hint + ML_DSA_STEPS) % ML_DSA_STEPS : high;
}

/**
 * Whether the key made the signature (algorithms 3 and 8), by the pure kind with an empty context.
 * False too for a key or signature of another length, or not spelled in the one way.
 */
export function verifyMlDsa44(publicKey, signature, message) {
  if (publicKey.length !== PUBLIC_KEY_BYTES.get(COSIGNATURE_ML_DSA_44)) return false;
  if (signature.length !== SIGNATURE_BYTES.get(COSIGNATURE_ML_DSA_44)) return false;
  const challenge = signature.slice(0, ML_DSA_CHALLENGE_BYTES);
  const zEnd = ML_DSA_CHALLENGE_BYTES + ML_DSA_ROWS * Z_BITS * 32;
  const hints = unpackHints(signature.slice(zEnd));
  if (hints === null) return false;
  const z = rowsOf(signature.slice(ML_DSA_CHALLENGE_BYTES, zEnd), Z_BITS * 32).map((bytes) =>
    unpackBits(bytes, Z_BITS).map((number) => ML_DSA_GAMMA_1 - number),
  );
  const isShort = (number) => Math.abs(number) < ML_DSA_GAMMA_1 - ML_DSA_BETA;
  if (!z.every((row) => row.every(isShort))) return false;
  // The pure kind, and a context of no bytes.
  const domain = [0, 0];
  const mu = shake256(64, shake256(64, publicKey), domain, message);
  const w1 = approximation(publicKey, challenge, z).map((row, at) =>
    packBits(row.map((value, place) => useHint(hints[at].has(place), value)), W1_BITS),
  );
  return equal(challenge, shake256(ML_DSA_CHALLENGE_BYTES, mu, ...w1));
}

/** A·z - c·t1·2^13, row by row: what the signer drew, but for the low bits that hints make up for. */
function approximation(publicKey, challenge, z) {
  const seed = publicKey.slice(0, 32);
  const c = ntt(sampleInBall(challenge));
  const zValues = z.map((row) => ntt(row.map(modQ)));
  return rowsOf(publicKey.slice(32), T1_BITS * 32).map((bytes, row) => {
    const t1 = ntt(unpackBits(bytes, T1_BITS).map((number) => number << ML_DSA_DROPPED_BITS));
    const sum = t1.map((value, at) => modQ(-c[at] * value));
    for (const [column, values] of zValues.entries()) {
      const entry = matrixEntry(seed, row, column);
      for (const [at, value] of values.entries()) sum[at] = modQ(sum[at] + entry[at] * value);
    }
    return inverseNtt(sum);
  });
}

// Verifier keys and signed notes (C2SP signed-note)

const SPACE_OR_PLUS =
  /[\0-\x20+\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** Keys that count have names of at most 255 bytes; those of other signatures are ignored. */
function isKeyName(name, bytesMax = NAME_BYTES_MAX) {
  if (LONE_SURROGATE.test(name) || SPACE_OR_PLUS.test(name)) return false;
  const size = encoder.encode(name).length;
  return size > 0 && size <= bytesMax;
}

/** A verifier key: `<name>+<hex id>+<base64(algorithm ‖ public key)>`. */
export async function parseVkey(vkey) {
  demand(vkey.length <= 4096 && [...vkey].length <= VKEY_CHARS_MAX, "vkey too long");
  const parts = /^([^+]*)\+([0-9a-f]{8})\+(.*)$/s.exec(vkey);
  demand(parts !== null, "a vkey is <name>+<hex key id>+<base64 key>");
  const [, name, id, spelled] = parts;
  const material = decodeBase64(spelled);
  demand(material.length > 0, "a vkey names its algorithm");
  demand(isKeyName(name), "not a key name");
  const algorithm = material[0];
  const size = PUBLIC_KEY_BYTES.get(algorithm);
  demand(size !== undefined, "unknown signature algorithm");
  demand(material.length === 1 + size, `a public key of this type is ${size} bytes`);
  const hashed = await sha256(encoder.encode(name), [0x0a], material);
  demand(hex(hashed.slice(0, 4)) === id, "the vkey's id is not that of its name and key");
  return Object.freeze({ name, id, algorithm, publicKey: material.slice(1), vkey });
}

/** Check one signature (without its key id) of `key` over a note's text. */
async function verifySignature(key, text, signature) {
  const isValid = key.algorithm === COSIGNATURE_ML_DSA_44 ? verifyMlDsa44 : verifyEd25519;
  const timed = key.algorithm === ED25519 ? 0 : TIMESTAMP_BYTES;
  const bare = signature.slice(timed);
  const size = SIGNATURE_BYTES.get(key.algorithm);
  const problem = `${key.name}: a signature of this type is ${timed + size} bytes`;
  demand(signature.length === timed + size, problem, SignatureError);
  const message = signedMessage(key, text, cosignatureTime(signature));
  const valid = await isValid(key.publicKey, bare, message);
  demand(valid, `${key.name}: the signature does not verify`, SignatureError);
}

/** What is signed of a note's text, by the kind of key (C2SP signed-note, tlog-cosignature). */
function signedMessage(key, text, seconds) {
  if (key.algorithm === ED25519) return encoder.encode(text);
  demand(seconds <= UINT63_MAX, `${key.name}: cosignature timestamp too large`, SignatureError);
  if (key.algorithm === COSIGNATURE_ED25519) {
    return encoder.encode(`cosignature/v1\ntime ${seconds}\n${text}`);
  }
  try {
    return wholeTree(key.name, text, seconds);
  } catch (error) {
    throw new SignatureError(`${key.name}: ${refusal(error).message}`);
  }
}

/** `subtree/v1` over the whole tree of a checkpoint: the rest of its text is not signed. */
function wholeTree(cosigner, text, seconds) {
  const lines = text.split("\n");
  demand(lines.length >= 4, "a checkpoint has at least three lines");
  const [origin, size, root] = lines;
  return concat(
    encoder.encode("subtree/v1\n\0"),
    lengthAndName(cosigner),
    bigEndian(seconds, 8),
    lengthAndName(origin),
    bigEndian(0, 8), // from the first leaf
    bigEndian(decodeDecimal(size), 8),
    decodeHash(root),
  );
}

function lengthAndName(name) {
  const bytes = encoder.encode(name);
  const fits = bytes.length > 0 && bytes.length <= NAME_BYTES_MAX;
  demand(fits, `a cosigned name has 1 to ${NAME_BYTES_MAX} bytes`);
  return concat([bytes.length], bytes);
}

function cosignatureTime(signature) {
  return littleEndian(signature.slice(0, TIMESTAMP_BYTES).reverse());
}

function checkText(text) {
  demand(text.endsWith("\n"), "a note's text ends with a newline");
  demand(!/[\0-\x09\x0b-\x1f]/.test(text), "a note holds no control characters");
}

/** A signed note, taken apart: its text counts only once a key that you know has signed it. */
export function parseNote(note) {
  demand(utf8(note, "a note is UTF-8").length <= NOTE_BYTES_MAX, "note too long");
  checkText(note);
  const split = note.lastIndexOf("\n\n");
  demand(split >= 0, "a note ends with an empty line and its signatures");
  const lines = note.slice(split + 2);
  checkText(lines);
  const spelled = lines.slice(0, -1).split("\n");
  demand(spelled.length <= SIGNATURES_MAX, `more than ${SIGNATURES_MAX} signatures`);
  return { text: note.slice(0, split + 1), signatures: spelled.map(parseSignatureLine) };
}

function parseSignatureLine(line) {
  demand(line.startsWith("— "), "a signature line starts with an em dash and a space");
  const gap = line.indexOf(" ", 2);
  const name = gap < 0 ? line.slice(2) : line.slice(2, gap);
  const material = decodeBase64(gap < 0 ? "" : line.slice(gap + 1));
  const shaped = isKeyName(name, NOTE_BYTES_MAX) && material.length >= 5;
  demand(shaped, "a signature line is a key name and base64 of key id and signature");
  return { name, id: hex(material.slice(0, 4)), signature: material.slice(4) };
}

function linesBy(note, key) {
  return note.signatures.filter((line) => line.name === key.name && line.id === key.id);
}

/** Every line that claims to be by `key` must verify, and there must be one. */
export async function verifyNote(note, key) {
  const lines = linesBy(note, key);
  demand(lines.length > 0, `no signature by ${key.name}`, SignatureError);
  for (const line of lines) await verifySignature(key, note.text, line.signature);
}

// Merkle trees (RFC 6962 §2.1)

const leafHash = (...pieces) => sha256([0x00], ...pieces);
const nodeHash = (left, right) => sha256([0x01], left, right);

function bitLength(number) {
  return number === 0n ? 0 : number.toString(2).length;
}

function bitCount(number) {
  return number.toString(2).replaceAll("0", "").length;
}

/** Check that `leaf` is leaf `index` of the tree of `size` with `root`. BigInt index and size. */
export async function verifyInclusion(leaf, index, size, path, root) {
  demand(index >= 0n && index < size, `no leaf ${index} in a tree of ${size}`, InclusionError);
  const inner = bitLength(index ^ (size - 1n));
  const length = inner + bitCount(index >> BigInt(inner));
  const problem = `the audit path has ${path.length} hashes, not ${length}`;
  demand(path.length === length, problem, InclusionError);
  let hashed = leaf;
  for (const [level, sibling] of path.entries()) {
    // Beyond `inner` the climb follows the tree's right edge: every sibling is to the left.
    const left = level >= inner || ((index >> BigInt(level)) & 1n) === 1n;
    hashed = left ? await nodeHash(sibling, hashed) : await nodeHash(hashed, sibling);
  }
  demand(equal(hashed, root), "the audit path does not lead to the root", InclusionError);
}

// Shapes of JSON

const isText = (value) => typeof value === "string";
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const isBool = (value) => typeof value === "boolean";
const matches = (pattern) => (value) => isText(value) && pattern.test(value);
const oneOf = (...values) => (value) => values.includes(value);
const listOf = (check, min = 0, max = Infinity) => (value) =>
  Array.isArray(value) && value.length >= min && value.length <= max && value.every(check);
const orNull = (check) => (value) => value === null || check(value);
/** An object with at least these members; a check that is wrapped in an array may be absent. */
const shape = (members) => (value) =>
  typeof value === "object" &&
  value !== null &&
  !Array.isArray(value) &&
  Object.entries(members).every(([name, check]) =>
    Object.hasOwn(value, name)
      ? (Array.isArray(check) ? check[0] : check)(value[name])
      : Array.isArray(check),
  );

const isDigest = matches(/^(?:sha256|salted):[0-9a-f]{64}$/);
const isOptionalDigest = matches(/^(?:(?:sha256|salted):[0-9a-f]{64})?$/);
const isOptionalPlainDigest = matches(/^(?:sha256:[0-9a-f]{64})?$/);
const isPlainDigest = matches(/^sha256:[0-9a-f]{64}$/);
const isHex32 = matches(/^[0-9a-f]{64}$/);
const isOptionalHex32 = matches(/^(?:[0-9a-f]{64})?$/);

const isOptionalNumber = matches(/^(?:[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e-?[0-9]{1,3})?)?$/);

const isReceipt = shape({
  answer: isText,
  attempt: isText,
  cached: [shape({ ended_ms: isCount, receipt: isHex32 })],
  created_s: isCount,
  key: isText,
  model: shape({
    fingerprint: [isText],
    numerics: [isText],
    provider: isText,
    requested: isText,
    served: isText,
    weights: [isOptionalPlainDigest],
  }),
  node: isText,
  operator: isText,
  policy: shape({ audit: [isBool], mode: oneOf("private", "batched", "full") }),
  previous: isOptionalHex32,
  request: shape({
    client: isDigest,
    digest: isDigest,
    format: isText,
    prompt: [isOptionalDigest],
  }),
  response: shape({
    chunks: isCount,
    digest: isDigest,
    finish: listOf(isText),
    prefix: [isOptionalDigest],
    prefix_characters: [isCount],
    resumed: [listOf(isCount)],
    resumed_digest: [isOptionalDigest],
    status: isCount,
    tokens: [isOptionalDigest],
  }),
  route: listOf(
    shape({
      attempt: isText,
      characters: [isCount],
      error: isText,
      node: isText,
      tokens: listOf(isCount),
    }),
  ),
  salt: isHex32,
  sampling: shape({
    caller_nonce: isHex32,
    min_p: [isOptionalNumber],
    node_nonce: [isOptionalHex32],
    nonce_index: [isCount],
    nonces: [isOptionalHex32],
    seed: [isOptionalHex32],
    source: oneOf("none", "nonces", "caller", "inherited"),
    temperature: [isOptionalNumber],
    top_k: [isCount],
    top_p: [isOptionalNumber],
  }),
  times: shape({ arrived_ms: isCount, ended_ms: isCount, first_token_ms: isCount }),
  type: oneOf("trunkline.receipt/v1"),
  usage: shape({ cached: [isCount], completion: isCount, counted: isBool, prompt: isCount }),
});

const isDecimal = matches(/^(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,40})?(?:e-?[1-9][0-9]{0,3})?$/);
const isTextOf = (min, max) => (value) => {
  const size = isText(value) ? [...value].length : -1;
  return size >= min && size <= max;
};
const isName = isTextOf(1, NAME_CHARS_MAX);
const isVkeyText = isTextOf(1, VKEY_CHARS_MAX);
const isSaid = isTextOf(0, SAID_CHARS_MAX);
const isResult = oneOf("pass", "fail", "inconclusive", "not_applicable");

const isVerdict = shape({
  alpha: isDecimal,
  bundle: isPlainDigest,
  calibration: isOptionalPlainDigest,
  checks: listOf(shape({ detail: isSaid, name: isName, result: isResult }), 0, CHECKS_MAX),
  drawn: [shape({ by: isVkeyText, draw: isPlainDigest, entry: isCount, index: isCount })],
  evidence: shape({
    detector: isDecimal,
    failed_at: [isCount],
    samples: isCount,
    tokens: isCount,
    wealth: isDecimal,
  }),
  key: isVkeyText,
  kind: oneOf("replay", "accounting", "opening", "embedding"),
  operator: isName,
  previous: isOptionalHex32,
  receipt: isHex32,
  regime: oneOf("exact", "noisy", "none"),
  result: isResult,
  salt: isHex32,
  standing: oneOf("good", "failed", "open"),
  subject: shape({
    configuration: isSaid,
    key: isVkeyText,
    model: isName,
    node: isName,
    numerics: isSaid,
    operator: isName,
    weights: isOptionalPlainDigest,
  }),
  type: oneOf("trunkline.verdict/v1"),
  unix_ms: isCount,
});

const isSalts = (value) =>
  shape({})(value) &&
  Object.keys(value).length <= SALTS_MAX &&
  Object.values(value).every(isHex32);

const isKeyRecord = shape({
  name: isText,
  vkey: isText,
  role: oneOf("node", "log", "witness", "operator", "verifier"),
  operator: isText,
  statements: [listOf(isText, 0, STATEMENTS_MAX)],
});

const isEvidence = shape({
  type: oneOf(EVIDENCE_TYPE),
  answer: isText,
  parts: listOf(
    shape({
      signed: shape({
        receipt: isText,
        batch: isText,
        index: Number.isInteger,
        path: listOf(isText),
      }),
      proof: [orNull(isText)],
      bodies: [
        orNull(
          shape({
            request: [orNull(isText)],
            client_request: [orNull(isText)],
            chunks: [orNull(listOf(isText))],
          }),
        ),
      ],
      salts: [isSalts],
    }),
    1,
    PARTS_MAX,
  ),
  keys: [listOf(isKeyRecord, 0, KEYS_MAX)],
  policy: [orNull(isText)],
  verdicts: [listOf(shape({ verdict: isText, proof: [orNull(isText)] }), 0, VERDICTS_MAX)],
});

function parseJson(data, bytesMax, what) {
  const bytes = isText(data) ? utf8(data) : data;
  demand(bytes.length <= bytesMax, `${what}: ${bytes.length} bytes exceed ${bytesMax}`);
  let text;
  let value;
  try {
    text = decoder.decode(bytes);
    value = JSON.parse(text);
  } catch {
    throw new MalformedError(`not ${what}`);
  }
  checkJson(text, `not ${what}`);
  return value;
}

/** Refuse what parsers of JSON differ about (docs/spec/evidence.md, "The file"). `text` is JSON. */
function checkJson(text, problem) {
  // The names seen in each object that is open here; null for an array.
  const open = [];
  let strings = 0;
  let commas = 0;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (character === '"') {
      strings += 1;
      demand(strings <= VALUES_MAX, problem);
      const end = stringEnd(text, at);
      const string = JSON.parse(text.slice(at, end));
      demand(!LONE_SURROGATE.test(string), problem);
      at = end - 1;
      if (!isFollowedByColon(text, end)) continue;
      demand(!open.at(-1).has(string), problem);
      open.at(-1).add(string);
    } else if (character === "{" || character === "[") {
      demand(open.length < DEPTH_MAX, problem);
      open.push(character === "{" ? new Set() : null);
    } else if (character === "}" || character === "]") {
      open.pop();
    } else if (character === ",") {
      commas += 1;
      demand(commas <= VALUES_MAX, problem);
    } else if (".eE".includes(character)) {
      // The letter is in `true` and `false` too: there no digit stands before it.
      demand(!/[0-9]/.test(text[at - 1]), problem);
    }
  }
}

/** Where the string that begins `at` ends: after the first quote with an even run of backslashes. */
function stringEnd(text, at) {
  let quote = text.indexOf('"', at + 1);
  for (;;) {
    let first = quote;
    while (text[first - 1] === "\\") first -= 1;
    if ((quote - first) % 2 === 0) return quote + 1;
    quote = text.indexOf('"', quote + 1);
  }
}

function isFollowedByColon(text, at) {
  while (" \t\n\r".includes(text[at])) at += 1;
  return text[at] === ":";
}

function parseEvidence(data) {
  const what = "evidence of version 1";
  const file = parseJson(data, EVIDENCE_BYTES_MAX, what);
  demand(isEvidence(file), `not ${what}`);
  const parts = file.parts.map((part) => ({
    signed: part.signed,
    proof: part.proof ?? null,
    bodies: part.bodies ? parseBodies(part.bodies, what) : null,
    salts: new Map(Object.entries(part.salts ?? {})),
  }));
  const { answer, keys = [], policy = null, verdicts = [] } = file;
  return { answer, parts, keys, policy, verdicts };
}

function parseBodies(bodies, what) {
  const bytes = (text) => (typeof text === "string" ? decodeBase64(text) : null);
  try {
    return {
      request: bytes(bodies.request),
      clientRequest: bytes(bodies.client_request),
      chunks: bodies.chunks?.map((chunk) => utf8(chunk)) ?? null,
    };
  } catch (error) {
    refusal(error);
    throw new MalformedError(`not ${what}`);
  }
}

/** A file of pinned keys: a JSON array of key records, as bytes or text. Throws MalformedError. */
export function parseKeys(data) {
  const keys = parseJson(data, KEYS_BYTES_MAX, "a list of keys");
  demand(listOf(isKeyRecord, 0, KEYS_MAX)(keys), "not a list of keys");
  return keys;
}

/** The canonical spelling (RFC 8785) of a value of the profile; MalformedError outside it. */
function canonical(value, depth = DEPTH_MAX) {
  switch (typeof value) {
    case "string":
      demand(!LONE_SURROGATE.test(value), "text that is not Unicode");
      return JSON.stringify(value);
    case "boolean":
      return String(value);
    case "number":
      demand(Number.isSafeInteger(value), "canonical JSON holds a number beyond its integers");
      return String(value);
    default:
  }
  demand(value !== null, "canonical JSON holds a null");
  demand(depth > 0, `canonical JSON is nested deeper than ${DEPTH_MAX}`);
  if (Array.isArray(value)) return `[${value.map((item) => canonical(item, depth - 1))}]`;
  const names = Object.keys(value).sort();
  demand(names.every((name) => /^[\0-\x7f]*$/.test(name)), "a key is not ASCII");
  const members = names.map((name) => `${JSON.stringify(name)}:${canonical(value[name], depth - 1)}`);
  return `{${members}}`;
}

/** The value that `text` is the one canonical spelling of. Throws MalformedError. */
export function parseCanonical(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new MalformedError("not JSON");
  }
  // Duplicate keys, spaces, needless escapes, other spellings of a number: all end here.
  demand(canonical(value) === text, "JSON is not in canonical form");
  return value;
}

/** A receipt v1, from exactly the text that was signed. Throws MalformedError. */
export function parseReceipt(text) {
  const { length } = utf8(text);
  demand(length <= RECEIPT_BYTES_MAX, `a receipt of ${length} bytes exceeds ${RECEIPT_BYTES_MAX}`);
  const receipt = parseCanonical(text);
  demand(isReceipt(receipt), "not a receipt of version 1");
  return receipt;
}

// Digests (docs/spec/receipt.md, "Digests")

/** `sha256:<hex>` of a request body, exactly as sent. */
export async function requestDigest(body) {
  return `sha256:${hex(await sha256(encoder.encode("trunkline.request/v1\n"), body))}`;
}

/** `sha256:<hex>` of a stream: one hash chain over its chunks (byte arrays), with an end of its own. */
export async function streamDigest(digest, attempt, chunks) {
  const name = utf8(attempt);
  demand(name.length <= 0xffff, "an attempt id is too long");
  const domain = encoder.encode("trunkline.stream/v1\n");
  let link = await sha256(domain, bigEndian(name.length, 2), name, fromDigest(digest));
  for (const chunk of chunks) {
    link = await sha256([0x01], link, bigEndian(chunk.length, 4), chunk);
  }
  return `sha256:${hex(await sha256([0x02], link, bigEndian(chunks.length, 8)))}`;
}

// "sha256:" and "salted:" are of one length.
const fromDigest = (digest) => fromHex(digest.slice("sha256:".length));

/** What a receipt says for `digest`, salted: the salt (hex) is the item's own. */
export async function commitment(item, digest, salt) {
  if (digest === "") return "";
  const domain = encoder.encode(`trunkline.commitment/v1\n${item}\n`);
  return `salted:${hex(await sha256(domain, fromHex(salt), fromDigest(digest)))}`;
}

/** Whether the part's receipt binds `digest` as `item`; null where it is hidden and not opened. */
async function binds(part, item, digest) {
  const [group, member] = item.split(".");
  const said = part.receipt[group][member] ?? "";
  if (!said.startsWith("salted:")) return said === digest;
  const salt = part.salts.get(item);
  return salt === undefined ? null : said === (await commitment(item, digest, salt));
}

// Findings

const finding = (result) => (detail) => ({ result, detail });
const passed = finding("pass");
const failed = finding("fail");
const inconclusive = finding("inconclusive");
const notApplicable = finding("not_applicable");

const SEALED = inconclusive("the receipt hides it, and the file has no salt that opens it");
const NO_RECEIPT = inconclusive("not checked: there is no receipt");
const PROVISIONAL = inconclusive("no proof yet: the receipt is provisional");
const NO_PROOF = inconclusive("not checked: no proof");
const NO_POLICY = inconclusive("not checked: no policy says which logs and witnesses count");

/** What an error makes of a step. */
function found(error) {
  if (error instanceof UnsupportedError) return inconclusive(error.message);
  return failed(plain(refusal(error).message));
}

/** What `check` gives or throws of `what`, remembered: the parts of a file have much in common. */
function once(known, what, check) {
  if (!known.has(what)) known.set(what, check(what));
  return known.get(what);
}

/** One finding for all parts. What is shown for some parts only is not shown. */
function combine(findings) {
  const results = new Set(findings.map((item) => item.result));
  const only = results.size === 1 ? findings[0].result : "inconclusive";
  const result = results.has("fail") ? "fail" : only;
  const same = new Set(findings.map((item) => item.detail)).size === 1;
  const details = findings.map((item, at) => `part ${at + 1}: ${item.detail}`);
  return { result, detail: same ? findings[0].detail : details.join("; ") };
}

async function each(parts, check) {
  const findings = [];
  for (const part of parts) findings.push(await check(part));
  return combine(findings);
}

// Steps 2 to 5: is each part a receipt, and did its node sign it?

function checkReceipt(part) {
  try {
    part.receipt = parseReceipt(part.signed.receipt);
  } catch (error) {
    return found(error);
  }
  return passed(`receipt v1 of attempt ${plain(part.receipt.attempt)}`);
}

async function checkKey(part, pinned, stated, operators) {
  const { receipt } = part;
  if (receipt === null) return NO_RECEIPT;
  try {
    const key = await parseVkey(receipt.key);
    part.key = key;
    demand(receipt.node === key.name, "the receipt names another node", SignatureError);
  } catch (error) {
    return found(error);
  }
  const who = `${plain(receipt.node)}, operator ${plain(receipt.operator)}`;
  try {
    const read = (operator) => statementsOf(operator, pinned, stated);
    const said = await once(operators, receipt.operator, read);
    part.said = said.filter(({ key }) => key === receipt.key);
  } catch (error) {
    return found(error);
  }
  if (part.said.some(({ to }) => to !== null)) {
    return passed(`the key of ${who}, by a statement of the operator, whose key is pinned`);
  }
  const nodes = (keys) => keys.filter((key) => key.role === "node");
  const holders = (keys) => nodes(keys).filter((key) => key.vkey === receipt.key);
  for (const [keys, whose] of [[pinned, "pinned"], [stated, "stated in the file"]]) {
    const held = holders(keys);
    if (held.some((key) => key.operator !== receipt.operator)) {
      return failed(`the key ${whose} belongs to another operator than the receipt says`);
    }
    if (held.length === 0 && nodes(keys).some((key) => key.name === receipt.node)) {
      return failed(`the key ${whose} for this node is another one`);
    }
  }
  if (holders(pinned).length > 0) return passed(`the key of ${who}, is pinned`);
  return inconclusive(`the key is known only from the file: whether ${who} holds it is not shown`);
}

/** What an operator said of keys, by a key of his that is pinned. */
async function statementsOf(who, pinned, stated) {
  const mine = ({ role, operator }) => role === "operator" && operator === who;
  const notesIn = (keys) => [
    ...new Set(keys.filter(mine).flatMap(({ statements = [] }) => statements)),
  ];
  const brought = notesIn(stated).slice(0, FILE_STATEMENTS_MAX);
  const notes = new Set([...notesIn(pinned), ...brought]);
  const said = [];
  for (const entry of pinned.filter(mine).filter(({ name, operator }) => name === operator)) {
    for (const note of notes) {
      try {
        const key = await parseVkey(entry.vkey);
        demand(key.name === entry.name, "the key has another name");
        said.push(await openStatement(note, key));
      } catch (error) {
        // What he did not sign says nothing, whoever brought it.
        if (error instanceof UnsupportedError) throw error;
        refusal(error);
      }
    }
  }
  return said;
}

/**
 * What an operator's key signed about a node's key: `from` and `to` (BigInt, Unix seconds), `to` null
 * for a revocation. Throws MalformedError, SignatureError.
 */
export async function openStatement(text, operatorKey) {
  const { length } = utf8(text);
  demand(length <= STATEMENT_NOTE_BYTES_MAX, "a key statement is too long");
  const note = parseNote(text);
  demand(note.signatures.length === 1, "a key statement has exactly one signature");
  const statement = await parseStatement(note.text);
  demand(operatorKey.algorithm === ED25519, "an operator signs with Ed25519", SignatureError);
  await verifyNote(note, operatorKey);
  const same = statement.operator === operatorKey.name;
  demand(same, "the statement names another operator than its key", SignatureError);
  return statement;
}

async function parseStatement(text) {
  const [type, operator, key, from, to, ...rest] = text.slice(0, -1).split("\n");
  const revocation = type === "trunkline.revocation/v1" && from !== undefined && to === undefined;
  const statement = type === "trunkline.key/v1" && to !== undefined && rest.length === 0;
  demand(revocation || statement, "no key statement or revocation of version 1");
  const { algorithm } = await parseVkey(key);
  demand(algorithm === ED25519, "a node signs with a plain Ed25519 key");
  const said = { operator, key, from: statementTime(from), to: null };
  if (revocation) return said;
  said.to = statementTime(to);
  demand(said.from < said.to, "a key statement ends before it begins");
  return said;
}

function statementTime(text) {
  const seconds = decodeDecimal(text);
  demand(seconds <= BigInt(Number.MAX_SAFE_INTEGER), "a time is out of range");
  return seconds;
}

async function checkSignature(part) {
  if (part.key === null) return inconclusive("not checked: there is no key");
  try {
    part.batch = await openBatch(part.signed.batch, part.key);
  } catch (error) {
    return found(error);
  }
  return passed(`signed by ${plain(part.key.name)}, in a batch of ${part.batch.count}`);
}

/**
 * The batch that `key` signed: count (BigInt), root, and how many of the first receipts may be
 * audited (null: not said). Throws MalformedError, SignatureError.
 */
export async function openBatch(text, key) {
  const { length } = utf8(text);
  demand(length <= BATCH_NOTE_BYTES_MAX, `a batch note of ${length} bytes is too long`);
  const note = parseNote(text);
  // The note is the log's entry: a second spelling of it would be a second entry.
  demand(note.signatures.length === 1, "a batch note has exactly one signature");
  const lines = note.text.split("\n");
  const ended = (lines.length === 7 || lines.length === 8) && lines.at(-1) === "";
  demand(ended && lines[0] === "trunkline.batch/v1", "not a batch of version 1");
  demand(isKeyName(lines[1]), "a batch names no node");
  const batch = { node: lines[1], count: decodeDecimal(lines[2]), root: decodeHash(lines[3]) };
  if (lines[4] !== "-") decodeHash(lines[4]);
  const unixMs = decodeDecimal(lines[5]);
  batch.unixMs = unixMs;
  const counted = batch.count >= 1n && batch.count <= BATCH_RECEIPTS_MAX;
  demand(counted, `a batch holds 1 to ${BATCH_RECEIPTS_MAX} receipts`);
  // Batches of before it was said have no such line.
  batch.audited = lines.length === 8 ? decodeDecimal(lines[6]) : null;
  const excess = batch.audited !== null && batch.audited > batch.count;
  demand(!excess, "a batch says that more may be audited than it holds");
  demand(unixMs <= BigInt(Number.MAX_SAFE_INTEGER), "a batch's time is out of range");
  const problem = "a batch is signed by a plain Ed25519 key";
  demand(key.algorithm === ED25519, problem, SignatureError);
  await verifyNote(note, key);
  demand(batch.node === key.name, "the batch names another node than its key", SignatureError);
  return batch;
}

async function checkPath(part) {
  if (part.batch === null) return inconclusive("not checked: there is no signed batch");
  const { receipt, index, path } = part.signed;
  try {
    await verifyReceiptPath(receipt, index, path, part.batch);
    checkAudited(part.receipt, index, part.batch);
  } catch (error) {
    return found(error);
  }
  return passed(`receipt ${index} of ${part.batch.count} in the signed batch`);
}

/** Check that a receipt's text is in `batch` at `index`; the path is base64 hashes. */
export async function verifyReceiptPath(receipt, index, path, batch) {
  demand(path.length <= BATCH_PATH_HASHES_MAX, "a batch path is too long");
  const leaf = await receiptLeaf(receipt);
  await verifyInclusion(leaf, BigInt(index), batch.count, path.map(decodeHash), batch.root);
}

/** Receipt and batch say the same of audits, where the batch says anything: its node signed both. */
function checkAudited(receipt, index, batch) {
  if (batch.audited === null) return;
  const may = receipt.policy.audit === true;
  const problem = "receipt and batch contradict each other on whether it may be audited";
  demand(may === (BigInt(index) < batch.audited), problem);
}

const receiptLeaf = (receipt) => leafHash(encoder.encode("trunkline.receipt/v1\n"), utf8(receipt));

// Steps 6 and 7: are these the request and the answer that the receipts were signed for?

async function checkRequest(part, request) {
  if (part.receipt === null) return NO_RECEIPT;
  const compared = [];
  for (const [source, raw, item] of [
    ["the request given here", request, "request.client"],
    ["the app's request in the file", part.bodies?.clientRequest ?? null, "request.client"],
    ["the node's request in the file", part.bodies?.request ?? null, "request.digest"],
  ]) {
    if (raw !== null) compared.push([source, await binds(part, item, await requestDigest(raw))]);
  }
  if (compared.length === 0) {
    return notApplicable("no request to compare with: the receipt has its digest only");
  }
  const names = (items) => items.map(([source]) => source);
  const wrong = names(compared.filter(([, agrees]) => agrees === false));
  if (wrong.length > 0) {
    return failed(`${wrong.join(" and ")}: not what the receipt was signed for`);
  }
  if (compared.some(([, agrees]) => agrees === null)) return SEALED;
  return passed(`${names(compared).join(", ")}: as signed`);
}

async function checkBodies(part) {
  if (part.receipt === null) return NO_RECEIPT;
  if ((part.bodies?.chunks ?? null) === null) {
    return notApplicable("no answer to compare with: the receipt has its digest only");
  }
  return compare(part, part.bodies.chunks, "the answer in the file");
}

async function compare(part, chunks, source) {
  const { receipt } = part;
  if (chunks.length !== receipt.response.chunks) {
    return failed(`${source} has another number of events than was signed`);
  }
  const digest = await streamDigest(receipt.request.digest, receipt.attempt, chunks);
  const agrees = await binds(part, "response.digest", digest);
  if (agrees === null) return SEALED;
  if (!agrees) {
    return failed(`${source} is not what the receipt was signed for`);
  }
  return passed(`${source}: ${chunks.length} events as signed`);
}

async function checkResponse(parts, response) {
  const receipts = parts.map((part) => part.receipt);
  if (receipts.some((receipt) => !VERBATIM.has(receipt.request.format))) {
    return inconclusive(
      "the gateway translated this answer for the app: what the node sent can not be told from " +
        "it, only from bodies that were kept",
    );
  }
  let chunks;
  try {
    chunks = responseChunks(response);
  } catch (error) {
    return failed(`the response given here: ${refusal(error).message}`);
  }
  const signed = receipts.reduce((sum, receipt) => sum + receipt.response.chunks, 0);
  const before = chunks.length - signed;
  const prefix = receipts[0].response.prefix ?? "";
  if (before < 0 || (before > 0 && !resumed(receipts[0]).length && !prefix)) {
    return failed("the response given here has another number of events than was signed");
  }
  let start = before;
  const findings = [];
  for (const part of parts) {
    const end = start + part.receipt.response.chunks;
    findings.push(await compare(part, chunks.slice(start, end), "the response given here"));
    start = end;
  }
  const result = combine(findings);
  const digest = prefix ? await prefixOf(chunks.slice(0, before)) : "";
  const says = prefix ? await binds(parts[0], "response.prefix", digest) : true;
  if (says === false) {
    return failed(`the first ${before} events do not say the text that was taken over`);
  }
  if (says === null && result.result === "pass") return SEALED;
  if (before > 0 && result.result === "pass" && prefix) {
    return inconclusive(
      `the last ${signed} events are as signed; the first ${before} say the text that was taken ` +
        "over, from an attempt that left no receipt",
    );
  }
  if (before > 0 && result.result === "pass") {
    return inconclusive(
      `the last ${signed} events are as signed; the first ${before} came from an attempt that ` +
        "left no receipt, and are bound by their token ids only",
    );
  }
  return result;
}

/** Digest of the text that the chunks say; empty where they are none. */
async function prefixOf(chunks) {
  try {
    const read = chunks.map((chunk) => JSON.parse(fromUtf8(chunk, "a chunk is not UTF-8")));
    const said = read.flatMap(({ choices = [] }) => choices.map((one) => one.delta?.content ?? ""));
    const data = utf8(`trunkline.prefix/v1\n${said.join("")}`);
    return `sha256:${hex(await sha256(data))}`;
  } catch {
    return "";
  }
}

async function checkAnswer(parts, receipts, response) {
  const kept = await each(parts, checkBodies);
  if (response === null) return kept;
  if (receipts === null) return NO_RECEIPT;
  const own = await checkResponse(parts, response);
  if (kept.result === "not_applicable") return own;
  // What the reader asked about comes first: kept bodies can spoil a pass, never stand in for it.
  return kept.result === "fail" || own.result === "pass" ? kept : own;
}

/**
 * The messages of a response in the OpenAI format: of a stream (WHATWG server-sent events), or the
 * one whole object. Byte arrays. Throws MalformedError for a stream that is cut or too long.
 */
export function responseChunks(response) {
  demand(response.length <= RESPONSE_BYTES_MAX, `more than ${RESPONSE_BYTES_MAX} bytes`);
  // One character per byte: what is compared is bytes, valid UTF-8 or not.
  let text = "";
  for (let at = 0; at < response.length; at += 8192) {
    text += String.fromCharCode(...response.subarray(at, at + 8192));
  }
  if (text.startsWith("{")) return [toBytes(text.replace(/[\r\n]+$/, ""))];
  text = text.replace(/^\xef\xbb\xbf/, "").replace(/\r\n?/g, "\n");
  const blocks = text.split("\n\n");
  const rest = blocks.pop();
  const unfinished = sseEvent(rest.slice(0, Math.max(0, rest.lastIndexOf("\n"))));
  const events = blocks.map(sseEvent).filter((event) => event !== null);
  const ended = unfinished?.data === "[DONE]" && unfinished.name === "";
  demand(unfinished === null || ended, "the stream ends in the middle of an event");
  const shown = events.filter(({ data }) => data !== null);
  // Clients hand events on whatever their name is, and stop reading at the end marker.
  demand(shown.every(({ name }) => name === ""), "the stream has an event that no node sends");
  const end = shown.findIndex(({ data }) => data === "[DONE]");
  const after = end < 0 ? [] : shown.slice(end).filter(({ data }) => data !== "[DONE]");
  demand(after.length === 0, "the stream goes on after its end");
  return shown.filter(({ data }) => data !== "[DONE]").map(({ data }) => toBytes(data));
}

function toBytes(text) {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** One block of the stream: its name and its data; null for a block of nothing. */
function sseEvent(block) {
  let name = "";
  // An id, which none is that holds NUL, or a comment.
  let marked = false;
  const data = [];
  const others = new Set();
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") data.push(value);
    else if (field === "event") name = value;
    else if (field === "id") marked ||= !value.includes("\0");
    else if (field !== "") others.add(field);
    else marked ||= line !== "";
  }
  demand(others.size <= SSE_FIELDS_MAX, "an event has too many fields");
  const known = marked || name !== "" || data.length > 0 || others.size > 0;
  return known ? { name, data: data.length > 0 ? data.join("\n") : null } : null;
}

// Step 8: do the receipts belong together, as one answer to one request?

const resumed = (receipt) => receipt.response.resumed ?? [];
const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

async function checkParts(answer, receipts) {
  const problem = (await problemOf(answer, receipts)) ?? null;
  return problem === null ? passed(story(receipts)) : failed(problem);
}

async function problemOf(answer, receipts) {
  let problem = notOneAnswer(answer, receipts);
  for (const receipt of receipts) problem ??= await contradictsItself(receipt);
  for (const [earlier, later] of pairs(receipts)) problem ??= doesNotFollow(earlier, later);
  return problem ?? routeProblem(receipts);
}

function pairs(items) {
  return items.slice(1).map((item, at) => [items[at], item]);
}

function notOneAnswer(answer, receipts) {
  const [first, ...rest] = receipts;
  if (receipts.some((receipt) => receipt.answer !== answer)) {
    return "a receipt belongs to another answer";
  }
  if (new Set(receipts.map((receipt) => receipt.attempt)).size !== receipts.length) {
    return "two receipts are for the same attempt";
  }
  for (const receipt of rest) {
    if (receipt.request.client !== first.request.client) {
      return "the receipts are for different requests of the app";
    }
    if (receipt.sampling.caller_nonce !== first.sampling.caller_nonce) {
      return "the receipts have different nonces of the caller";
    }
    if (receipt.created_s !== first.created_s) {
      return "the receipts give different times of the request";
    }
  }
  return undefined;
}

async function contradictsItself(receipt) {
  const { response, sampling, route } = receipt;
  const taken = resumed(receipt);
  if (taken.length > 0 !== Boolean(response.resumed_digest)) {
    return "a receipt counts tokens that it took over and does not bind them, or the reverse";
  }
  if (taken.length > 0 && taken.length !== response.finish.length) {
    return "a receipt took over another number of choices than it finished";
  }
  if (taken.length > 0 && route.length === 0) {
    return "a receipt took over tokens and names no attempt before it";
  }
  if (sampling.source === "nonces" && (sampling.seed ?? "") !== (await seedOf(receipt))) {
    return "a receipt's seed is not the one that its nonces and its request give";
  }
  if (taken.length > 0 && sampling.source !== "inherited") {
    return "a receipt took over tokens and has a seed of its own";
  }
  if ((sampling.source === "none") !== !sampling.seed) {
    return "a receipt names a source of its seed and no seed, or the reverse";
  }
  if (route.some((attempt) => attempt.tokens.length > response.finish.length)) {
    return "a receipt's route counts tokens of choices that the answer does not have";
  }
  const given = taken.map((_, choice) => sum(route.map((one) => one.tokens[choice] ?? 0)));
  if (given.some((count, choice) => count !== taken[choice])) {
    return "a receipt took over other tokens than its route accounts for";
  }
  const made = taken.length > 0 || receipt.response.prefix || sampling.source !== "none";
  if (receipt.cached && made) {
    return "a receipt says that its answer was cached, and how it was made";
  }
  return textProblem(receipt);
}

/** What a receipt says of text that it went on after must agree with itself. */
function textProblem({ response, route }) {
  const size = response.prefix_characters ?? 0;
  if (Boolean(response.prefix) !== size > 0) {
    return "a receipt counts text that it took over and does not bind it, or the reverse";
  }
  if (response.prefix && (response.resumed?.length || response.finish.length !== 1)) {
    return "a receipt took over text of more than one choice, or tokens besides";
  }
  if (sum(route.map((one) => one.characters ?? 0)) !== size) {
    return "a receipt took over other text than its route accounts for";
  }
  return undefined;
}

/** The seed that both nonces and the request give (docs/spec/receipt.md, "Seed"). */
async function seedOf({ sampling, request }) {
  const domain = encoder.encode("trunkline/sampling-seed/answer/v1\0");
  const nonces = fromHex(sampling.caller_nonce + (sampling.node_nonce ?? ""));
  return hex(await sha256(domain, nonces, fromDigest(request.digest)));
}

function doesNotFollow(earlier, later) {
  const counts = resumed(later);
  const text = (receipt) => receipt.response.prefix_characters ?? 0;
  if (counts.length === 0 && !later.response.prefix) {
    return "a later part took nothing over: it is not the same answer";
  }
  if (later.request.digest !== earlier.request.digest) {
    return "a part went on with another request than the one before it";
  }
  if (later.response.prefix) {
    if ((later.model.weights ?? "") !== (earlier.model.weights ?? "")) {
      return "a part went on with another model than the one before it";
    }
    return text(later) < text(earlier) ? "a part took over less text than the one before it" : undefined;
  }
  if ((later.sampling.seed ?? "") !== (earlier.sampling.seed ?? "")) {
    return "a part went on with another seed than the one before it";
  }
  const same = (name) => (later.model[name] ?? "") === (earlier.model[name] ?? "");
  if (!same("weights") || !same("numerics")) {
    return "a part went on with another model than the one before it";
  }
  const before = resumed(earlier);
  const had = before.length > 0 ? before : later.response.finish.map(() => 0);
  if (counts.length !== had.length || counts.some((count, choice) => count < had[choice])) {
    return "a part took over fewer tokens than the one before it";
  }
  return undefined;
}

function routeProblem(receipts) {
  for (const [earlier, later] of pairs(receipts)) {
    const history = [...earlier.route, earlier];
    const goesOn = history.every(
      (one, at) => later.route[at]?.attempt === one.attempt && later.route[at].node === one.node,
    );
    if (!goesOn) return "a part's route does not go on from the route of the part before it";
  }
  if (receipts.some(({ attempt, route }) => route.some((one) => one.attempt === attempt))) {
    return "a receipt's route names its own attempt";
  }
  return undefined;
}

function story(receipts) {
  const last = receipts.at(-1);
  const signed = new Set(receipts.map((receipt) => receipt.attempt));
  const lost = last.route.filter((one) => !signed.has(one.attempt)).slice(0, 8);
  const said = [`one answer in ${receipts.length} signed part${receipts.length > 1 ? "s" : ""}`];
  if (lost.length > 0) {
    const ends = lost.map((one) => `${plain(one.node)} (${plain(one.error)})`).join(", ");
    said.push(`earlier attempts that left no receipt, as told by the gateway: ${ends}`);
  }
  const taken = resumed(last);
  if (taken.length > 0) said.push(`${sum(taken)} tokens were taken over, bound by digest`);
  if (last.response.prefix) {
    const size = last.response.prefix_characters;
    said.push(`${size} characters of text were taken over, bound by digest`);
  }
  if (last.cached) {
    const first = `first given at ${last.cached.ended_ms} (Unix ms), receipt ${last.cached.receipt}`;
    said.push(`taken from the node's cache, not made for this request: ${first}`);
  }
  if (receipts[0].sampling.source === "inherited") {
    said.push("where the seed came from is not shown: that attempt left no receipt");
  }
  return said.join("; ");
}

// Policies (C2SP tlog-policy)

/** Which logs and witnesses count, and which sets of witnesses are enough. Throws MalformedError. */
export async function parsePolicy(text) {
  const data = utf8(text, "the policy is not Unicode");
  demand(data.length <= POLICY_BYTES_MAX, "policy too long");
  const forbidden = /[\0-\x08\x0b-\x1f\x7f]/;
  demand(!forbidden.test(text), "a policy holds no control characters but tab and newline");
  const policy = { logs: [], witnesses: [], groups: [], quorum: null };
  const names = new Set();
  const grouped = new Set();
  const readers = { log: readLog, witness: readWitness, group: readGroup, quorum: readQuorum };
  for (const [at, line] of text.split("\n").entries()) {
    const words = line.split(/[ \t]+/).filter((word) => word !== "");
    if (words.length === 0 || words[0].startsWith("#")) continue;
    try {
      const room = policy.logs.length + names.size < DEFINITIONS_MAX;
      demand(room, `more than ${DEFINITIONS_MAX} definitions`);
      const kind = words.shift();
      demand(Object.hasOwn(readers, kind), "a line is a log, a witness, a group or the quorum");
      await readers[kind](words, policy, names, grouped);
    } catch (error) {
      throw new MalformedError(`policy line ${at + 1}: ${refusal(error).message}`);
    }
  }
  demand(policy.quorum !== null, "policy: no quorum line");
  return policy;
}

async function readLog(words, policy) {
  demand(words.length === 1 || words.length === 2, "log <vkey> [<url>]");
  const key = await policyKey(words[0], [ED25519, COSIGNATURE_ML_DSA_44], policy.logs);
  policy.logs.push(key);
}

async function readWitness(words, policy, names) {
  demand(words.length === 2 || words.length === 3, "witness <name> <vkey> [<url>]");
  const listed = policy.witnesses.map((witness) => witness.key);
  const cosigning = [COSIGNATURE_ED25519, COSIGNATURE_ML_DSA_44];
  const key = await policyKey(words[1], cosigning, listed);
  define(words[0], names);
  policy.witnesses.push({ name: words[0], key });
}

function readGroup(words, policy, names, grouped) {
  demand(words.length >= 3, "group <name> all|any|<k> <name>…");
  const [name, rule, ...members] = words;
  for (const member of members) {
    demand(names.has(member), "a group's members are defined above it");
    demand(!grouped.has(member), "a name is a member of one group, once");
    grouped.add(member);
  }
  const size = BigInt(members.length);
  const threshold = rule === "any" ? 1n : rule === "all" ? size : decodeDecimal(rule);
  const possible = threshold >= 1n && threshold <= size;
  demand(possible, "a group's threshold is between 1 and its members' number");
  define(name, names);
  policy.groups.push({ name, threshold: Number(threshold), members });
}

function readQuorum(words, policy, names) {
  demand(words.length === 1, "quorum <name>");
  demand(policy.quorum === null, "a policy has one quorum line");
  const known = words[0] === "none" || names.has(words[0]);
  demand(known, "the quorum's name is defined above it");
  policy.quorum = words[0];
}

function define(name, names) {
  demand(name !== "none" && !names.has(name), "this name is taken");
  names.add(name);
}

async function policyKey(vkey, algorithms, listed) {
  const key = await parseVkey(vkey);
  demand(algorithms.includes(key.algorithm), "the key is of another type");
  const again = listed.some((other) => equal(other.publicKey, key.publicKey));
  demand(!again, "this key is listed already");
  return key;
}

function isQuorum(policy, cosigned) {
  if (policy.quorum === "none") return true;
  const witnessed = new Set(cosigned);
  for (const { name, threshold, members } of policy.groups) {
    if (members.filter((member) => witnessed.has(member)).length >= threshold) witnessed.add(name);
  }
  return witnessed.has(policy.quorum);
}

// Checkpoints and proofs (C2SP tlog-checkpoint, tlog-cosignature, tlog-proof)

/** The checkpoint in a parsed note, once a log of the policy is known to have signed it. */
export async function openCheckpoint(note, logs) {
  const checkpoint = parseCheckpoint(note.text);
  const signers = logs.filter(
    (key) => key.name === checkpoint.origin && linesBy(note, key).length > 0,
  );
  for (const key of signers) await verifyNote(note, key);
  demand(signers.length > 0, "not signed by a log that the policy knows", SignatureError);
  return checkpoint;
}

function parseCheckpoint(text) {
  demand(encoder.encode(text).length <= CHECKPOINT_BYTES_MAX, "checkpoint too long");
  const lines = text.slice(0, -1).split("\n");
  const shaped = lines.length >= 3 && !lines.includes("");
  demand(shaped, "a checkpoint has at least three lines, none of them empty");
  return { origin: lines[0], size: decodeDecimal(lines[1]), root: decodeHash(lines[2]) };
}

/** Policy names of the witnesses that cosigned the note, when they are a quorum. */
export async function checkCosignatures(note, policy) {
  return [...(await cosignatureTimes(note, policy)).keys()];
}

/** The same, with the Unix seconds (BigInt) of each one's latest cosignature. */
async function cosignatureTimes(note, policy) {
  const cosigned = new Map();
  for (const { name, key } of policy.witnesses) {
    if (linesBy(note, key).length === 0) continue;
    await verifyNote(note, key);
    const times = linesBy(note, key).map(({ signature }) => cosignatureTime(signature));
    cosigned.set(name, latest(times));
  }
  const problem = `${cosigned.size} known witnesses cosigned: not a quorum`;
  demand(isQuorum(policy, cosigned.keys()), problem, QuorumError);
  return cosigned;
}

const latest = (times) => times.reduce((last, time) => (time > last ? time : last), 0n);

/** What the policy makes of the checkpoints in one file, by their notes: each is checked once. */
function newCheckpoints(policy) {
  return { policy, left: ML_DSA_CHECKS_MAX, signed: new Map(), cosigned: new Map() };
}

/** The checkpoint, if a log signed it; null if there are too many signatures to say. */
function signedCheckpoint(checkpoints, text) {
  return once(checkpoints.signed, text, async () => {
    const note = parseNote(text);
    const { logs, witnesses } = checkpoints.policy;
    const costly = [...logs, ...witnesses.map(({ key }) => key)].filter(
      ({ algorithm }) => algorithm === COSIGNATURE_ML_DSA_44,
    );
    const checks = costly.reduce((count, key) => count + linesBy(note, key).length, 0);
    if (checks > checkpoints.left) return null;
    checkpoints.left -= checks;
    return openCheckpoint(note, logs);
  });
}

/** As `cosignatureTimes`, for a checkpoint that `signedCheckpoint` gave. */
function cosignedCheckpoint(checkpoints, text) {
  return once(checkpoints.cosigned, text, async () =>
    cosignatureTimes(parseNote(text), checkpoints.policy),
  );
}

/** A tlog-proof, taken apart: index (BigInt), path and the checkpoint's note. */
export function parseProof(text) {
  demand(utf8(text, "the proof is not Unicode").length <= PROOF_BYTES_MAX, "proof too long");
  const gap = text.indexOf("\n\n");
  demand(gap >= 0, "a proof has an empty line before its checkpoint");
  const lines = text.slice(0, gap).split("\n");
  demand(lines.shift() === "c2sp.org/tlog-proof@v1", "not a c2sp.org/tlog-proof@v1");
  if (lines[0]?.startsWith("extra ")) decodeBase64(lines.shift().slice("extra ".length));
  demand(lines[0]?.startsWith("index "), "a proof has an index line");
  const index = decodeDecimal(lines.shift().slice("index ".length));
  demand(lines.length <= PROOF_HASHES_MAX, "the audit path is too long");
  return { index, path: lines.map(decodeHash), note: text.slice(gap + 2) };
}

// Steps 9 to 12: is each batch in a log of the policy, under a checkpoint that enough cosigned?

function readProof(part) {
  if (part.proofText === null) return;
  try {
    part.proof = parseProof(part.proofText);
  } catch (error) {
    part.problem = refusal(error).message;
  }
}

/** Step 9: which policy the proofs are held against, and the finding about it. */
async function choosePolicy(given, stated) {
  const describe = (policy) =>
    `${policy.logs.length} logs, ${policy.witnesses.length} witnesses`;
  if (given !== null) return [given, passed(`your policy: ${describe(given)}`)];
  if (stated === null) return [null, inconclusive("no policy, neither given nor in the file")];
  try {
    const policy = await parsePolicy(stated);
    const chosen = `the file's own policy: ${describe(policy)}; whoever wrote the file chose them`;
    return [policy, inconclusive(chosen)];
  } catch (error) {
    return [null, failed(`the file's policy: ${refusal(error).message}`)];
  }
}

async function checkLog(part, checkpoints) {
  if (part.problem !== "") return failed(part.problem);
  if (part.proof === null) return PROVISIONAL;
  if (checkpoints === null) return NO_POLICY;
  try {
    part.checkpoint = await signedCheckpoint(checkpoints, part.proof.note);
  } catch (error) {
    return found(error);
  }
  if (part.checkpoint === null) return inconclusive(`not checked: ${TOO_MANY}`);
  return passed(`${plain(part.checkpoint.origin)} at size ${part.checkpoint.size}`);
}

/** Step 10, over all parts: one log that signed two trees of one size has forked. */
function contradiction(parts) {
  const trees = parts.map((part) => part.checkpoint).filter((tree) => tree !== null);
  for (const [at, tree] of trees.entries()) {
    const other = trees
      .slice(0, at)
      .find(({ origin, size }) => origin === tree.origin && size === tree.size);
    if (other !== undefined && !equal(other.root, tree.root)) {
      return failed(`${plain(tree.origin)} signed two trees of size ${tree.size}: keep this file`);
    }
  }
  return null;
}

async function checkQuorum(part, checkpoints) {
  if (part.proof === null) return part.problem === "" ? PROVISIONAL : NO_PROOF;
  if (checkpoints === null) return NO_POLICY;
  if (part.checkpoint === null) {
    return inconclusive("not checked: the checkpoint is not the log's");
  }
  const { policy } = checkpoints;
  let cosigned;
  try {
    const times = await cosignedCheckpoint(checkpoints, part.proof.note);
    cosigned = [...times.keys()];
    // 0 is a witness that says nothing of time.
    const timed = cosigned.filter((name) => times.get(name) > 0n);
    part.witnessed = isQuorum(policy, timed) ? latest([...times.values()]) : 0n;
  } catch (error) {
    return error instanceof QuorumError ? inconclusive(error.message) : found(error);
  }
  if (policy.quorum === "none") {
    return passed(
      "the policy asks for no witnesses: a log that shows others another tree is not noticed",
    );
  }
  return passed(`quorum ${plain(policy.quorum)}, cosigned by ${cosigned.map(plain).join(", ")}`);
}

async function checkInclusion(part) {
  if (part.proof === null) return part.problem === "" ? PROVISIONAL : NO_PROOF;
  if (part.checkpoint === null) {
    return inconclusive("not checked: no log of the policy vouches for the tree");
  }
  const { index, path } = part.proof;
  const { origin, size, root } = part.checkpoint;
  try {
    await verifyInclusion(await leafHash(utf8(part.signed.batch)), index, size, path, root);
  } catch (error) {
    return found(error);
  }
  return passed(`the batch is entry ${index} of ${plain(origin)}`);
}

/** Step 13: was the receipt in the log while its operator let its key count? */
function checkValidity(part) {
  if (part.receipt === null) return NO_RECEIPT;
  if (part.said.length === 0) {
    return notApplicable("no statement of its operator limits the key in time");
  }
  if (part.batch === null) return inconclusive("not checked: there is no signed batch");
  if (part.proof === null && part.problem === "") return PROVISIONAL;
  if (part.witnessed === 0n) {
    return inconclusive("not checked: no witness says when the log had it");
  }
  const seen = part.witnessed;
  const signed = part.batch.unixMs / 1000n;
  if (part.said.some(({ from, to }) => to === null && seen >= from)) {
    return failed("the key was revoked before the witnesses saw the receipt in the log");
  }
  const spans = part.said.filter(({ to }) => to !== null);
  if (spans.length > 0 && !spans.some(({ from, to }) => from <= signed && seen < to)) {
    return failed("the receipt was not signed and logged while its key was valid");
  }
  return passed(`in the log by ${seen} (Unix seconds), while its key was valid`);
}

// Step 14: what verifiers said of the receipts since

const DOUBT = Symbol("the verdict speaks against its subject as a whole");

/** One finding for all verdicts: none is weighed against another, and one failure is enough. */
async function checkVerdicts(verdicts, parts, pinned, checkpoints) {
  if (verdicts.length === 0) return notApplicable("the file carries no verdicts");
  const said = [];
  for (const item of verdicts) said.push(await checkVerdict(item, parts, pinned, checkpoints));
  const results = new Set(said.map((one) => one.result));
  const detail = [...new Set(said.map((one) => one.detail))].join("; ");
  if (results.has("fail")) return failed(detail);
  if (said.some((one) => one[DOUBT])) return inconclusive(detail);
  return results.has("pass") ? passed(detail) : notApplicable(detail);
}

async function checkVerdict({ verdict: text, proof = null }, parts, pinned, checkpoints) {
  try {
    const { note, verdict, key } = await parseVerdict(text);
    const who = `${plain(key.name)}, operator ${plain(verdict.operator)}`;
    const holders = pinned.filter(({ role, vkey }) => role === "verifier" && vkey === verdict.key);
    if (holders.length === 0) {
      return notApplicable(`${who}: not a verifier that you know: it says nothing`);
    }
    if (holders.some(({ operator }) => operator !== verdict.operator)) {
      return failed("a verifier's key is pinned for another operator than it says");
    }
    demand(note.signatures.length === 1, "a verdict has exactly one signature");
    await verifyNote(note, key);
    const problem = await wrongSubject(verdict, parts);
    if (problem !== null) return problem;
    return judge(verdict, who, await unlogged(text, proof, checkpoints));
  } catch (error) {
    return found(error);
  }
}

/** The verdict in a note, not yet verified, and the key that it names. Throws MalformedError. */
async function parseVerdict(text) {
  const { length } = utf8(text, "a verdict is not Unicode");
  demand(length <= VERDICT_NOTE_BYTES_MAX, "a verdict is too long");
  const note = parseNote(text);
  const size = encoder.encode(note.text).length;
  demand(size <= VERDICT_NOTE_BYTES_MAX - SIGNATURE_LINE_BYTES_MAX, "a verdict is too long");
  const head = "trunkline.verdict/v1\n";
  demand(note.text.startsWith(head), "not a verdict of version 1");
  const verdict = parseCanonical(note.text.slice(head.length, -1));
  demand(isVerdict(verdict), "not a verdict of version 1");
  const key = await signingKey(verdict.key);
  await signingKey(verdict.subject.key);
  if (verdict.drawn !== undefined) await signingKey(verdict.drawn.by);
  const contradicts = verdict.checks.some(({ result }) => result === "fail");
  const problem = "a verdict passes what one of its checks failed";
  demand(verdict.result !== "pass" || !contradicts, problem);
  return { note, verdict, key };
}

async function signingKey(vkey) {
  const key = await parseVkey(vkey);
  demand(key.algorithm === ED25519, "a record is signed by a plain Ed25519 key");
  return key;
}

/** Why the verdict is not about a receipt of this file; null: it is. */
async function wrongSubject(verdict, parts) {
  for (const { receipt, signed } of parts.filter((part) => part.receipt !== null)) {
    if (hex(await receiptLeaf(signed.receipt)) !== verdict.receipt) continue;
    if (verdict.subject.key === receipt.key) return null;
    return failed("a verdict holds against one node what another signed");
  }
  if (parts.some((part) => part.receipt === null)) return notApplicable(NO_RECEIPT.detail);
  return failed("a verdict is about another receipt");
}

/** Why the verdict is not shown to be in a log; empty: it is. Throws for a false proof. */
async function unlogged(text, proofText, checkpoints) {
  if (proofText === null) return "not shown to be in a log";
  const proof = parseProof(proofText);
  if (checkpoints === null) return "no policy says which logs count";
  const tree = await signedCheckpoint(checkpoints, proof.note);
  if (tree === null) return TOO_MANY;
  try {
    await cosignedCheckpoint(checkpoints, proof.note);
  } catch (error) {
    if (error instanceof QuorumError) return "too few witnesses saw it in the log";
    throw error;
  }
  await verifyInclusion(await leafHash(utf8(text)), proof.index, tree.size, proof.path, tree.root);
  return "";
}

function judge({ result, kind, regime, standing }, who, problem) {
  const detail = `${who}: ${result} (${kind}, regime ${regime}), standing ${standing}`;
  if (result === "fail") return failed(detail);
  const silent = notApplicable(problem === "" ? detail : `${detail}; does not count: ${problem}`);
  const said = result === "pass" && problem === "" ? passed(detail) : silent;
  return { ...said, [DOUBT]: standing === "failed" };
}

// All steps

/**
 * Verify an evidence file without asking anybody.
 *
 * `evidence`: its bytes (Uint8Array) or text. `policy`: the text of your C2SP tlog-policy; without
 * it the file's own is used, and the outcome is at best inconclusive. `trustedKeys`: records of keys
 * of nodes, operators and verifiers that you know by other means (see `parseKeys`). `request`,
 * `response`: Uint8Arrays, the bodies as your app sent and received them.
 *
 * Any bytes give a report: `outcome` (pass, fail, inconclusive), `state` (provisional, final),
 * `answer`, `steps` (number, title, result, detail) and `receipts`, as parsed. Throws MalformedError
 * only for a `policy` that does not parse: then the check could not run.
 */
export async function verify(evidence, options = {}) {
  const { policy = null, trustedKeys = [], request = null, response = null } = options;
  if (globalThis.crypto?.subtle === undefined) {
    throw new UnsupportedError("WebCrypto is missing: open this page over https or from loopback");
  }
  const given = policy === null ? null : await parsePolicy(policy);
  let file;
  try {
    file = parseEvidence(evidence);
  } catch (error) {
    return unreadable(refusal(error).message);
  }
  const parts = file.parts.map(newPart);
  const operators = new Map();
  const findings = [
    passed(`evidence of answer ${plain(file.answer)}, ${parts.length} part(s)`),
    await each(parts, checkReceipt),
    await each(parts, (part) => checkKey(part, trustedKeys, file.keys, operators)),
    await each(parts, checkSignature),
    await each(parts, checkPath),
  ];
  const receipts = parts.map((part) => part.receipt).filter((receipt) => receipt !== null);
  const complete = receipts.length === parts.length;
  findings.push(await each(parts, (part) => checkRequest(part, request)));
  findings.push(await checkAnswer(parts, complete ? receipts : null, response));
  findings.push(complete ? await checkParts(file.answer, receipts) : NO_RECEIPT);
  const [used, chosen] = await choosePolicy(given, file.policy);
  const checkpoints = used === null ? null : newCheckpoints(used);
  parts.forEach(readProof);
  const logged = await each(parts, (part) => checkLog(part, checkpoints));
  findings.push(chosen, contradiction(parts) ?? logged);
  findings.push(await each(parts, (part) => checkQuorum(part, checkpoints)));
  findings.push(await each(parts, checkInclusion));
  findings.push(await each(parts, checkValidity));
  findings.push(await checkVerdicts(file.verdicts, parts, trustedKeys, checkpoints));
  return report(file.answer, findings, receipts);
}

function newPart({ signed, proof, bodies, salts }) {
  return {
    signed,
    bodies,
    salts,
    proofText: proof,
    receipt: null,
    key: null,
    batch: null,
    said: [],
    witnessed: 0n,
    proof: null,
    problem: "",
    checkpoint: null,
  };
}

function unreadable(problem) {
  const rest = inconclusive("not checked: the file can not be read");
  return report("", [failed(problem), ...TITLES.slice(1).map(() => rest)], []);
}

function report(answer, findings, receipts) {
  const steps = findings.map(({ result, detail }, at) => ({
    number: at + 1,
    title: TITLES[at],
    result,
    detail,
  }));
  const results = new Set(steps.map((step) => step.result));
  const logged = steps.slice(9, 12).every((step) => step.result === "pass");
  const shown = logged && !results.has("inconclusive") ? "pass" : "inconclusive";
  return {
    outcome: results.has("fail") ? "fail" : shown,
    state: logged ? "final" : "provisional",
    answer,
    steps,
    receipts,
  };
}
