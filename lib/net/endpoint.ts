/**
 * Where a migration listens or connects, of any kind: `host:port`, `[v6]:port`, `unix:/path` or
 * `unix-abstract:name`.
 *
 * @module
 */
import type { Stoppable } from "../sync/semaphore.ts";
import type { EndpointKind, Listener } from "./endpoint_kind.ts";
import { tcp, type TcpEndpoint } from "./tcp.ts";
import type { Transport } from "./transport.ts";
import { abstractUnix, unix, type AbstractUnixEndpoint, type UnixEndpoint } from "./unix.ts";

/** A TCP endpoint by name or number, or a Unix socket by its path or abstract name. */
export type Endpoint = TcpEndpoint | UnixEndpoint | AbstractUnixEndpoint;

/** All kinds; TCP comes last, since it has no word that tells it from others. */
const KINDS: Readonly<Record<Endpoint["kind"], EndpointKind<Endpoint>>> = {
  unix,
  "unix-abstract": abstractUnix,
  tcp,
};

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
  for (const kind of Object.values(KINDS)) {
    const endpoint = kind.parse(text);
    if (endpoint !== undefined) return endpoint;
  }
  const forms = Object.values(KINDS).flatMap((kind) => kind.forms);
  throw new TypeError(
    `Cannot parse endpoint ${JSON.stringify(text)}: must be ${forms.slice(0, -1).join(", ")} or ${forms.at(-1)}`,
  );
}

/** The text form that `parseEndpoint()` reads. */
export function formatEndpoint(endpoint: Endpoint): string {
  return KINDS[endpoint.kind].format(endpoint);
}

/** Replaces the names in an endpoint by numbers, see {@linkcode EndpointKind}. */
export function resolveNames(endpoint: Endpoint, limitMs: number): Promise<Endpoint> {
  return KINDS[endpoint.kind].resolve(endpoint, limitMs);
}

/** Listens at an endpoint without names, see {@linkcode EndpointKind}. */
export function listenAt(endpoint: Endpoint, backlog: number): Listener<Endpoint> {
  return KINDS[endpoint.kind].listen(endpoint, backlog);
}

/** Connects to an endpoint without names, see {@linkcode EndpointKind}. */
export function connectTo(
  endpoint: Endpoint,
  limitMs: number,
  session: Stoppable,
  onSocket: (fd: number) => void,
): number {
  return KINDS[endpoint.kind].connect(endpoint, limitMs, session, onSocket);
}

/** How bytes travel over connections of an endpoint. */
export function transportOf(endpoint: Endpoint): Transport {
  return KINDS[endpoint.kind].transport;
}
