// Asks the page's server. Refusals come back as Refused with the server's own sentence.

export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

const PATIENCE_MS = 10000;

export function get(path, query = {}) {
  const wanted = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined);
  const search = new URLSearchParams(wanted).toString();
  return answer(path + (search ? `?${search}` : ""), { cache: "no-store" });
}

export function post(path, body) {
  return answer(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
}

async function answer(address, options) {
  let response, found;
  try {
    response = await fetch(address, { ...options, signal: AbortSignal.timeout(PATIENCE_MS) });
    found = await response.json();
  } catch {
    throw new Refused(0, "the page's server does not answer");
  }
  if (response.status === 401) {
    location.assign("/login");
    throw new Refused(401, "the session is over: log in again");
  }
  if (!response.ok) throw new Refused(response.status, found.error ?? `status ${response.status}`);
  return found;
}
