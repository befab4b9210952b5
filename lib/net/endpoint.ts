/**
 * Where a migration listens or connects: `host:port`, `[v6]:port` or `unix:/path`.
 *
 * @module
 */
import { isIP } from "node:net";

/** A TCP endpoint by name or number, or a Unix socket. */
export type Endpoint =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string };

/** Bytes of a Unix socket path that fit the kernel's address, with its NUL. */
const UNIX_PATH_BYTES_MAX = 107;

/**
 * Parses an endpoint.
 *
 * @example
 * ```ts
 * parseEndpoint("[::1]:4444"); // { kind: "tcp", host: "::1", port: 4444 }
 * ```
 * @throws {TypeError} for any other form.
 */
export function parseEndpoint(text: string): Endpoint {
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    const bytes = new TextEncoder().encode(path).byteLength;
    if (bytes < 1 || bytes > UNIX_PATH_BYTES_MAX || path.includes("\0")) {
      throw new TypeError(
        `Cannot parse endpoint ${text}: the path has ${bytes} bytes, must be 1 to ${UNIX_PATH_BYTES_MAX}`,
      );
    }
    return { kind: "unix", path };
  }
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65_535 || (match?.[1] !== undefined && isIP(host) !== 6)) {
    throw new TypeError(
      `Cannot parse endpoint ${JSON.stringify(text)}: must be host:port, [v6]:port or unix:/path`,
    );
  }
  return { kind: "tcp", host, port };
}

/** The text form that `parseEndpoint()` reads. */
export function formatEndpoint(endpoint: Endpoint): string {
  if (endpoint.kind === "unix") return `unix:${endpoint.path}`;
  const { host, port } = endpoint;
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}
