/**
 * Addresses of hosts, found before a session begins: its threads block and ask nobody.
 *
 * @module
 */
import { formatEndpoint, parseEndpoint, resolveNames } from "../net/endpoint.ts";
import { withHostname } from "../net/tls_options.ts";
import type { SessionOptions } from "./options.ts";
import { resolveTimeouts } from "./session_config.ts";

/**
 * Replaces the names in an endpoint by addresses, on the event loop and within `limitMs`.
 *
 * @throws {SystemError} when a name is not known.
 */
export async function resolveEndpoint(text: string, limitMs: number): Promise<string> {
  return formatEndpoint(await resolveNames(parseEndpoint(text), limitMs));
}

/** Options whose endpoint is numeric or a Unix socket; see {@linkcode resolveEndpoint}. */
export async function withAddress<Options extends SessionOptions>(
  options: Options,
): Promise<Options> {
  const { connectMs } = resolveTimeouts(options.timeouts);
  const endpoint = await resolveEndpoint(options.endpoint, connectMs);
  return { ...options, endpoint, tls: withHostname(options.tls, options.endpoint) };
}
