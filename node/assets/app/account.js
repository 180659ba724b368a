// Who this tab plays as: a guest account, kept in sessionStorage so that each tab is a player of its own. Every node verifies the
// token, so the same account works wherever the tab connects.

const KEY = "rookery.account";
// Birds. There is no wren among them: in the village one walks about already (examples/village/src/map.rs).
const NAMES = [
  "Bunting", "Chough", "Crake", "Dipper", "Dunlin", "Dunnock", "Fieldfare", "Finch", "Goldcrest", "Heron", "Jackdaw", "Kestrel",
  "Kite", "Lapwing", "Linnet", "Magpie", "Merlin", "Nuthatch", "Osprey", "Ouzel", "Petrel", "Pipit", "Plover", "Redstart",
  "Sandpiper", "Serin", "Shrike", "Siskin", "Skylark", "Snipe", "Starling", "Swift", "Tern", "Wagtail", "Whinchat",
];

/** The server refused an account call; `code` is the contract's. */
export class AccountRefused extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Returns this tab's account, making a guest on `base` when there is none yet. */
export async function account(base) {
  const kept = read();
  if (kept) return kept;
  const name = NAMES[Math.floor(Math.random() * NAMES.length)];
  return keep({ name, ...(await post(base, "/v1/auth/guest", { name })) });
}

/** Returns an account with a fresh access token: the same player if the node still knows them, a new guest if not. */
export async function renewed(base) {
  const kept = read();
  forget();
  if (kept?.refresh_token) {
    try {
      return keep({ ...kept, ...(await post(base, "/v1/auth/refresh", { refresh_token: kept.refresh_token })) });
    } catch (error) {
      if (!(error instanceof AccountRefused)) {
        keep(kept);
        throw error;
      }
    }
  }
  return account(base);
}

/** The answer of an account call. */
export async function post(base, path, body) {
  const response = await fetch(base + path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(8000),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new AccountRefused(answer.code ?? `http ${response.status}`, answer.message ?? "The node refused the account call.");
  return answer;
}

// A browser that blocks storage still plays: the account then lives as long as the page.
let held = null;

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? held;
  } catch {
    return held;
  }
}

function keep(value) {
  held = value;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(value));
  } catch {
    // Held in memory above.
  }
  return value;
}

function forget() {
  held = null;
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Nothing was stored.
  }
}
