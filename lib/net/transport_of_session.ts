/**
 * How bytes travel in a session: as its endpoint has it, or encrypted.
 *
 * @module
 */
import { transportOf, type Endpoint } from "./endpoint.ts";
import type { TlsConfig } from "./tls_options.ts";
import { TlsTransport } from "./tls_transport.ts";
import type { Transport } from "./transport.ts";

/** What decides. */
export interface TransportChoice {
  readonly endpoint: Endpoint;
  readonly tls: TlsConfig | undefined;
}

/** For the calling thread, which disposes it. */
export function sessionTransport({ endpoint, tls }: TransportChoice): Transport {
  return tls === undefined ? transportOf(endpoint) : new TlsTransport(tls);
}
