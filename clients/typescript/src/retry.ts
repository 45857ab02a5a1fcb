/** When a read that was answered with *behind* is asked again. */

/** Settings of {@link withSession} for reads that no node was fresh enough for. */
export interface RetryOptions {
  /** How often one request is asked again. Default: 3. */
  limit?: number;
  /** How long after the first attempt began the last one may begin, in ms. Default: 5000. */
  deadlineMs?: number;
  /**
   * How many retries all requests may make together: at first this many, and `percent` hundredths of one more for each
   * request that is made, up to this many again. Default: 10.
   */
  reserve?: number;
  /** Default: 20. */
  percent?: number;
}

const SAFE = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"]);
const CONDITIONS = ["if-match", "if-unmodified-since", "if-none-match", "if-modified-since"];
const FIRST_PAUSE_MS = 50;

/** Whether a request can do no harm twice. */
export function isSafe(method: string): boolean {
  return SAFE.has(method.toUpperCase());
}

/** What all requests may spend on retries together. */
export class Budget {
  readonly #limit: number;
  readonly #deadline: number;
  readonly #most: number;
  readonly #gain: number;
  /** In hundredths of a retry. */
  #left: number;

  constructor({ limit = 3, deadlineMs = 5000, reserve = 10, percent = 20 }: RetryOptions) {
    this.#limit = bounded(limit);
    this.#deadline = bounded(deadlineMs);
    this.#most = bounded(reserve) * 100;
    this.#gain = bounded(percent);
    this.#left = this.#most;
  }

  /** A request is made for the first time. */
  earn(): void {
    this.#left = Math.min(this.#left + this.#gain, this.#most);
  }

  /** How long to wait before asking again, in ms; `undefined` when the answer is the caller's. */
  spend(request: Request, response: Response, retries: number, elapsedMs: number): number | undefined {
    const after = behind(request, response);
    if (after === undefined || !isSafe(request.method) || retries >= this.#limit) return undefined;
    const pause = after ?? FIRST_PAUSE_MS * 2 ** Math.min(retries, 10);
    // So that callers spread.
    const spread = pause * (1 + Math.random() / 10);
    if (elapsedMs + spread > this.#deadline || this.#left < 100) return undefined;
    this.#left -= 100;
    return spread;
  }
}

/** Whether no node is fresh enough for the request yet; when to ask again, in ms, or `null` where that is not told. */
function behind(request: Request, response: Response): number | null | undefined {
  const after = response.headers.get("retry-after");
  // The second is the answer of a server that is like Vault, unless the caller's own condition does not hold.
  const vault = response.status === 412 && !CONDITIONS.some((name) => request.headers.has(name));
  if (!(response.status === 503 && after !== null) && !vault) return undefined;
  // A date would need a clock that agrees with the server's.
  return /^\d{1,9}$/.test(after ?? "") ? Number(after) * 1000 : null;
}

/** Rejects with the signal's reason as soon as it aborts. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const aborted = (): void => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", aborted);
      resolve();
    }, ms);
    if (signal.aborted) aborted();
    else signal.addEventListener("abort", aborted, { once: true });
  });
}

function bounded(value: number): number {
  return Math.min(Math.max(Number.isFinite(value) ? value : 0, 0), 1e6);
}
