// Lets devices in by token: the password of the CONNECT is looked up in a table of the configuration.

import { log } from "weirmq:plugin/log@0.1.0";

const BAD_USER_NAME_OR_PASSWORD = 0x86;
const KEYS = ["principal", "publish", "subscribe", "expires_in_seconds"];

/** What each token is good for. */
let leases = new Map();

export const guest = {
  info() {
    return { name: "example-js", version: "0.1.0" };
  },

  // What is thrown here as a text is shown to the operator.
  init(config) {
    const { tokens, ...others } = JSON.parse(config);
    for (const key in others) throw `${key}: there is no such key; there is: tokens`;
    if (typeof tokens !== "object" || tokens === null) throw "tokens: missing; it is a table of tokens";
    leases = new Map(Object.entries(tokens).map(([token, entry]) => [token, lease(token, entry)]));
    log("info", `${leases.size} tokens at ${new Date().toISOString()}`);
  },

  health() {},
};

export const authenticate = {
  authenticate(request) {
    if (request.password == null) return { tag: "next" };
    const lease = leases.get(text(request.password));
    if (lease === undefined) {
      const reason = `no such token, shown by client '${request.clientId}'`;
      return { tag: "deny", val: { reasonCode: BAD_USER_NAME_OR_PASSWORD, reason } };
    }
    return { tag: "allow", val: { lease, data: undefined } };
  },
};

/** The lease that `entry` of the configuration describes. */
function lease(token, entry) {
  // A token is a secret: the operator is told where it stands, not what it is.
  const where = `tokens.${token.slice(0, 2)}…`;
  for (const key in entry) if (!KEYS.includes(key)) throw `${where}.${key}: there is no such key; there are: ${KEYS}`;
  const { principal, publish = [], subscribe = [], expires_in_seconds } = entry;
  if (typeof principal !== "string" || principal === "") throw `${where}.principal: wanted a name`;
  for (const [key, filters] of Object.entries({ publish, subscribe })) {
    if (!Array.isArray(filters) || filters.some((filter) => typeof filter !== "string" || filter === "")) {
      throw `${where}.${key}: wanted a list of topic filters`;
    }
  }
  const holds = expires_in_seconds;
  if (holds != null && !(Number.isInteger(holds) && holds > 0 && holds < 2 ** 32)) {
    throw `${where}.expires_in_seconds: wanted a number of seconds`;
  }
  return {
    principal,
    attributes: [],
    expiresInSeconds: holds,
    rights: {
      publish: publish.map((filter) => ({ filter, qosMax: "exactly-once", retain: true })),
      subscribe: subscribe.map((filter) => ({ filter, qosMax: "exactly-once" })),
    },
  };
}

/** The text of some bytes, a character for each: tokens are ASCII. */
function text(bytes) {
  return String.fromCharCode(...bytes);
}
