/** Which hosts a session may be told to. */

/** One host, or all below a domain. */
export interface HostRule {
  admits(url: URL): boolean;
}

/**
 * `api.example.com` or `*.example.com` (all hosts below, not `example.com` itself), with `https://` or `http://` before it
 * if only that is meant, and with a port after it if only that is meant.
 */
export function hostRule(rule: string): HostRule {
  const parts = /^(?:(https?):\/\/)?(\*\.)?(\[[0-9a-f:.]+\]|[^\s@*/?#:[\]\\.][^\s@*/?#:[\]\\]*)(?::(\d{1,5}))?$/i.exec(rule);
  const [, scheme, below, host, port] = parts ?? [];
  const name = host === undefined ? undefined : parse(`http://${host}/`)?.hostname;
  if (name === undefined || Number(port ?? 0) > 65535) {
    const accepted = "api.example.com, *.example.com, https://api.example.com and api.example.com:8443";
    throw new TypeError(`"${rule.slice(0, 80)}" names no host: accepted are forms like ${accepted}`);
  }
  const protocol = scheme === undefined ? undefined : `${scheme.toLowerCase()}:`;
  return {
    admits(url: URL): boolean {
      if (!isHttp(url)) return false;
      const named = below === undefined ? url.hostname === name : url.hostname.endsWith(`.${name}`);
      return named && (protocol ?? url.protocol) === url.protocol && Number(port ?? portOf(url)) === portOf(url);
    },
  };
}

/** A scheme, a host and a port, as saved sessions name them; `undefined` when it is no URL of HTTP. */
export function originOf(url: URL): string | undefined {
  return isHttp(url) ? `${url.protocol}//${url.hostname}:${portOf(url)}` : undefined;
}

/** `undefined` instead of an error. */
export function parse(url: string, base?: string): URL | undefined {
  try {
    return new URL(url, base);
  } catch {
    return undefined;
  }
}

function isHttp(url: URL): boolean {
  return url.protocol === "https:" || url.protocol === "http:";
}

function portOf(url: URL): number {
  return url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
}
