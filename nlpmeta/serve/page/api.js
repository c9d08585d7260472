// Requests to the server that this page came from.

const TOKEN = "nlpmeta-token";

/** An answer that says why a request was refused. */
export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export const setToken = (token) => sessionStorage.setItem(TOKEN, token);
export const token = () => sessionStorage.getItem(TOKEN) ?? "";

async function send(method, path, body) {
  const headers = {};
  if (method !== "GET") headers["Content-Type"] = "application/json";
  if (token()) headers.Authorization = `Bearer ${token()}`;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new Problem(0, "The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw new Problem(answer.status, problem.detail ?? `The server answered ${answer.status}.`);
}

/** The JSON that the server answers. */
export async function call(method, path, body) {
  const answer = await send(method, path, body);
  return answer.status === 204 ? null : answer.json();
}

/** Saves what the server answers as a file. */
export async function save(path, name) {
  const url = URL.createObjectURL(await (await send("GET", path)).blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Waits until the server has loaded its models. */
export async function ready(waiting) {
  for (;;) {
    const state = await call("GET", "/page/state").catch((problem) => ({ problem }));
    if (state.ready) return;
    waiting(state.failed ? "The models cannot be loaded; the log of the server says why." : state.problem?.message);
    await new Promise((done) => setTimeout(done, 700));
  }
}

export const at = (model, rest = "") => `/v1/models/${encodeURIComponent(model)}${rest}`;
