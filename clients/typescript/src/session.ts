import { type HostRule, hostRule, originOf, parse } from "./hosts.js";
import { isLater, type Lost, parseLost, readLost, writeLost } from "./lost.js";
import { TokenSet, MAX_HELD } from "./tokens.js";
import * as wire from "./wire.js";

/** Settings of a {@link Session}. */
export interface SessionOptions {
  /**
   * Hosts that the session may be told to: `api.example.com` or `*.example.com` (all hosts below, not `example.com`
   * itself), with `https://` or `http://` before it if only that is meant, and with a port after it if only that is meant.
   * Default: the first host that answers with a token.
   */
  sendTo?: Iterable<string>;
  /** The session's name, `[A-Za-z0-9._~-]{1,128}`. It is no credential. Default: the server gives one. */
  id?: string;
  /** Called whenever the session has changed, to {@link Session.save | save} it. Default: nothing is called. */
  onChange?: (session: Session) => void;
}

/**
 * What one request carried.
 * @internal
 */
export interface Sent {
  readonly id: string | undefined;
  readonly tokens: readonly string[];
  readonly acknowledges: Lost | undefined;
  readonly unsure: number;
  /** Only an answer of the server itself, and none from a cache, ends what is said. */
  readonly needsAnswer: boolean;
}

/** @internal */
export type Trust = "ours" | "open" | "foreign";

const VERSION = "ryw1";
/** A write went without an answer. */
const UNSURE = "~?";

/**
 * What a user must be able to see, carried from responses to requests by {@link withSession}.
 *
 * Requests may run concurrently: what their responses say is joined, in whatever order they arrive, and nothing replaces
 * what it does not contain. Of what servers say at most 7 tokens of 512 characters are kept; when there are more, the oldest
 * goes, and requests carry the word `unknown` beside the others, so that servers find out for themselves.
 */
export class Session {
  readonly #rules: readonly HostRule[];
  readonly #onChange: ((session: Session) => void) | undefined;
  readonly #tokens = new TokenSet();
  #id: string | undefined;
  /** The host that the session belongs to, where no rule says so. */
  #home: string | undefined;
  #lost: Lost | undefined;
  /** What the caller has acknowledged, and servers have not heard yet. */
  #acknowledged: Lost | undefined;
  /** A write went without an answer: the number of the last such, until a server that was told has answered. 0: none. */
  #unsure = 0;
  /** How many went without an answer ever. It only grows, so that no number is used twice. */
  #doubts = 0;
  #telling: "nobody" | "now" | "again" = "nobody";

  /** @throws TypeError for a rule of `sendTo` that names no host, and for an `id` that is none. */
  constructor(options: SessionOptions = {}) {
    this.#rules = [...(options.sendTo ?? [])].map(hostRule);
    if (options.id !== undefined && !wire.isSessionId(options.id)) {
      throw new TypeError("a session's id is 1 to 128 of A-Z a-z 0-9 . _ ~ -");
    }
    this.#id = options.id;
    this.#onChange = options.onChange;
  }

  /**
   * The session that {@link save} has written; a new one for `null` and `undefined`, as an empty storage has it.
   *
   * A text that is damaged is no error: the session is *unknown* then, and servers find out for themselves what it must see.
   *
   * @throws TypeError as the constructor.
   */
  static restore(saved: string | null | undefined, options: SessionOptions = {}): Session {
    const session = new Session(options);
    session.#restore(saved);
    return session;
  }

  /** The session's name: given to the constructor, or by a server. */
  get id(): string | undefined {
    return this.#id;
  }

  /** Whether there is nothing to carry. */
  get isEmpty(): boolean {
    return this.#id === undefined && this.#tokens.isEmpty && this.#unsure === 0;
  }

  /** An acknowledged write of this session that did not survive a failover, until {@link acknowledgeLost}. */
  get lost(): Lost | undefined {
    return this.#lost;
  }

  /**
   * The user knows what was lost, and goes on from what is there. The next requests say so until a server has heard it.
   * Returns whether there was anything to acknowledge.
   */
  acknowledgeLost(): boolean {
    const known = this.#lost;
    if (known === undefined) return false;
    [this.#lost, this.#acknowledged] = [undefined, known];
    this.#changed();
    return true;
  }

  /**
   * Everything there is to keep of the session, as one line of at most 8192 characters. It is no secret, but tells when the
   * session wrote: keep it where only its user reads it, like `sessionStorage`.
   */
  save(): string {
    return [this.envelope(), this.#home ?? "", writeLost(this.#lost), writeLost(this.#acknowledged)].join(";");
  }

  /** What to put into a message or a job, so that whoever takes it sees what this session must see. */
  envelope(): string {
    const tokens = this.#tokens.toString();
    const unsure = this.#unsure === 0 ? "" : tokens === "" ? UNSURE : `.${UNSURE}`;
    return `${VERSION};${this.#id ?? ""};${tokens}${unsure}`;
  }

  /**
   * Adds what another session has {@link save | saved}, as in another tab, or what an {@link envelope} says. Of two names the
   * session's own stays. A text that is damaged makes the session *unknown*.
   */
  join(saved: string): void {
    if (this.#restore(saved)) this.#changed();
  }

  /**
   * Adds what a shared link says, for the page that it leads to: `session.joinLink(location.href)`. It names no session, and
   * servers ignore it once it is some minutes old. Returns whether it said anything new.
   */
  joinLink(url: string | URL): boolean {
    const query = /^[^#?]*\?([^#]*)/.exec(String(url))?.[1] ?? "";
    const tokens = new URLSearchParams(query).getAll(wire.LINK_PARAMETER).slice(0, wire.MAX_TOKENS);
    const changed = tokens.map((token) => this.#tokens.add(token)).includes(true);
    if (changed) {
      this.#takeBackAcknowledgement();
      this.#changed();
    }
    return changed;
  }

  /** @internal */
  trust(url: URL): Trust {
    if (this.#rules.length > 0) return this.#rules.some((rule) => rule.admits(url)) ? "ours" : "foreign";
    const origin = originOf(url);
    if (origin === undefined) return "foreign";
    return this.#home === undefined ? "open" : this.#home === origin ? "ours" : "foreign";
  }

  /**
   * What a request to this URL carries.
   * @internal
   */
  outgoing(url: URL): Sent | undefined {
    const trust = this.trust(url);
    if (trust === "foreign") return undefined;
    // There is something to tell, so it is this host's.
    if (trust === "open" && !this.isEmpty) this.#home = originOf(url);
    const tokens = [...this.#tokens.values];
    if (this.#unsure > 0 && tokens.at(-1) !== wire.UNKNOWN_TOKEN) tokens.push(wire.UNKNOWN_TOKEN);
    const acknowledges = this.#acknowledged;
    const needsAnswer = acknowledges !== undefined || this.#tokens.isOpen || tokens.at(-1) === wire.UNKNOWN_TOKEN;
    return { id: this.#id, tokens, acknowledges, unsure: this.#unsure, needsAnswer };
  }

  /**
   * Joins what the response to a request that carried `sent` says. `cached`: it may come from a cache, and then repeats what
   * the server has said to another request.
   * @internal
   */
  learn(from: URL, sent: Sent, headers: Headers, cached: boolean): void {
    const tokens = listed(headers.get(wire.TOKEN));
    const trust = this.trust(from);
    // A name without a token is no reason to belong to somebody.
    if (trust === "foreign" || (trust === "open" && tokens.length === 0)) return;
    if (trust === "open") this.#home = originOf(from);
    let changed = trust === "open";
    for (const token of tokens) {
      changed = this.#tokens.add(token, cached ? [] : sent.tokens) || changed;
      // A later doubt is not settled by an answer to an earlier one.
      if (!cached && this.#unsure > 0 && sent.unsure === this.#unsure && TokenSet.reads(token)) {
        [this.#unsure, changed] = [0, true];
      }
    }
    const id = headers.get(wire.SESSION_ID);
    const named = id !== null && wire.isSessionId(id) && headers.has(wire.CONSISTENCY_ENFORCED);
    // The session that a server has begun, or changed. Of two that began at once the first one stays.
    if (named && id !== sent.id && this.#id === sent.id && !(cached && sent.id !== undefined)) {
      [this.#id, changed] = [id, true];
    }
    if (this.#learnLoss(sent, headers, cached) || changed) this.#changed();
  }

  /**
   * A write to this URL went without an answer, and may have happened.
   * @internal
   */
  doubt(url: URL): void {
    if (this.trust(url) !== "ours") return;
    this.#doubt();
    this.#changed();
  }

  #doubt(): void {
    this.#doubts += 1;
    this.#unsure = this.#doubts;
  }

  /**
   * What somebody else has lost was not among what the user acknowledges, and a server that heard both at once would take it
   * for acknowledged. It tells again.
   */
  #takeBackAcknowledgement(): void {
    this.#acknowledged = undefined;
  }

  #learnLoss(sent: Sent, headers: Headers, cached: boolean): boolean {
    const loss = parseLost(headers.get(wire.LOST));
    if (loss !== undefined) {
      // It is still being told, to requests that had left before.
      if (this.#acknowledged !== undefined && !isLater(loss, this.#acknowledged)) return false;
      if (!isLater(loss, this.#lost)) return false;
      [this.#lost, this.#acknowledged] = [loss, undefined];
      return true;
    }
    if (cached || !sent.acknowledges || !speaks(headers) || this.#acknowledged === undefined) return false;
    this.#acknowledged = undefined;
    return true;
  }

  #restore(saved: string | null | undefined): boolean {
    if (saved === null || saved === undefined) return false;
    const parts = typeof saved === "string" && saved.length <= wire.MAX_SAVED_LENGTH ? saved.split(";") : [];
    const [version, id = "", tokens = "", home = "", lost = "", acknowledged = ""] = parts;
    const understood = version === VERSION && (parts.length === 3 || parts.length === 6);
    if (!understood || (id !== "" && !wire.isSessionId(id))) {
      this.#doubt();
      return true;
    }
    this.#id ??= id === "" ? undefined : id;
    const before = this.#tokens.toString();
    const listed = tokens.split(".").filter((part) => part !== "");
    listed.forEach((part, index) => {
      if (part === UNSURE) {
        if (this.#unsure === 0) this.#doubt();
      } else if (index >= 2 * MAX_HELD + 2 || !this.#restoreToken(part)) {
        this.#tokens.drop();
      }
    });
    if (this.#tokens.toString() !== before) this.#takeBackAcknowledgement();
    const origin = parse(home);
    if (origin !== undefined && originOf(origin) === home) this.#home ??= home;
    // To nobody would mean that nothing is carried any more.
    else if (home !== "") this.#doubt();
    const [loss, known] = [readLost(lost), readLost(acknowledged)];
    // A loss that is known here is no news.
    if (loss !== undefined && isLater(loss, this.#lost) && isLater(loss, this.#acknowledged)) this.#lost = loss;
    // An acknowledgement does not cover what only this session has.
    const adopts = before === "" && this.#lost === undefined;
    if (adopts && known !== undefined && isLater(known, this.#acknowledged)) this.#acknowledged = known;
    return true;
  }

  #restoreToken(part: string): boolean {
    if (!part.startsWith("~")) return this.#tokens.add(part) || this.#tokens.covers(part);
    const issuer = /^~([0-9a-f]{18})$/.exec(part)?.[1];
    if (issuer !== undefined) this.#tokens.drop(issuer);
    return issuer !== undefined;
  }

  /** Calls come one at a time: a session that is changed while it is told is told again afterwards. */
  #changed(): void {
    if (this.#onChange === undefined) return;
    if (this.#telling !== "nobody") {
      this.#telling = "again";
      return;
    }
    // Bounded, for a callback that changes the session whenever it is told.
    for (let calls = 0; calls < 8; calls += 1) {
      this.#telling = "now";
      try {
        this.#onChange(this);
      } catch (error) {
        // Whoever has made the request has not made this mistake.
        console.error("ryw-client: onChange failed", error);
      }
      if (this.#telling === "now") break;
    }
    this.#telling = "nobody";
  }
}

/**
 * Whether a response comes from a server that knows what a session is.
 * @internal
 */
export function speaks(headers: Headers): boolean {
  return headers.has(wire.TOKEN) || headers.has(wire.CONSISTENCY_ENFORCED);
}

/** A repeated field, which `Headers` shows as one. */
function listed(field: string | null): string[] {
  const most = wire.MAX_TOKENS * (wire.MAX_TOKEN_LENGTH + 2);
  const items = (field ?? "").slice(0, most).split(",", wire.MAX_TOKENS);
  return items.map((item) => item.trim()).filter((item) => item !== "");
}
