/**
 * The page around trunkline-verify.mjs: files in, a table out.
 *
 * What it shows of a file goes in as text, never as markup. Files are read here and sent nowhere.
 */

import { EVIDENCE_BYTES_MAX, MalformedError, parseKeys, verify } from "./trunkline-verify.mjs";

const OUTCOMES = {
  pass: "Pass: every step that had anything to show was shown.",
  fail: "Fail: at least one step does not hold.",
  inconclusive: "Inconclusive: nothing is wrong, but not everything was shown.",
};
const INPUTS = ["evidence", "policy", "keys", "request", "response"];
const RESULTS = { not_applicable: "not applicable" };

const element = (id) => document.getElementById(id);
const chosen = new Map();
// A newer choice makes a check that still runs stale: its result is not shown.
let latest = 0;

async function bytesOf(name) {
  const file = chosen.get(name);
  if (file === undefined) return null;
  if (file.size > EVIDENCE_BYTES_MAX) throw new MalformedError(`${file.name} is too large`);
  return new Uint8Array(await file.arrayBuffer());
}

async function options() {
  const [policy, keys] = [await bytesOf("policy"), await bytesOf("keys")];
  return {
    policy: policy === null ? null : new TextDecoder("utf-8", { fatal: true }).decode(policy),
    trustedKeys: keys === null ? [] : parseKeys(keys),
    request: await bytesOf("request"),
    response: await bytesOf("response"),
  };
}

function row({ number, title, result, detail }) {
  const line = document.createElement("tr");
  line.dataset.result = result;
  for (const text of [String(number), title, RESULTS[result] ?? result, detail]) {
    const cell = document.createElement("td");
    cell.textContent = text;
    line.append(cell);
  }
  return line;
}

function show(text, report) {
  const outcome = element("outcome");
  outcome.textContent = text;
  outcome.dataset.outcome = report?.outcome ?? "";
  element("steps").replaceChildren(...(report?.steps ?? []).map(row));
  element("report").hidden = report === undefined;
}

async function check() {
  latest += 1;
  const number = latest;
  const evidence = chosen.get("evidence");
  if (evidence === undefined) return;
  show("Checking…");
  let text;
  let report;
  try {
    report = await verify(await bytesOf("evidence"), await options());
    text = `${OUTCOMES[report.outcome]} (${evidence.name}, ${report.state})`;
  } catch (error) {
    text = `The check could not run: ${error.message}`;
  }
  if (number === latest) show(text, report);
}

function choose(name, file) {
  if (file === undefined) chosen.delete(name);
  else chosen.set(name, file);
  check();
}

for (const name of INPUTS) {
  element(name).addEventListener("change", ({ target }) => choose(name, target.files[0]));
}
element("drop").closest("form").addEventListener("submit", (event) => event.preventDefault());
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  // Anywhere on the page: a file that misses the box would replace the page.
  window.addEventListener(kind, (event) => {
    event.preventDefault();
    element("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
window.addEventListener("drop", ({ dataTransfer }) => {
  if (dataTransfer.files.length > 0) choose("evidence", dataTransfer.files[0]);
});
