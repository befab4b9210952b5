/**
 * Addresses of hosts, found before a session begins: its threads block and ask nobody.
 *
 * @module
 */
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { SystemError, TimeoutError } from "../errors.ts";
import { formatEndpoint, parseEndpoint } from "../net/endpoint.ts";
import { resolveTimeouts, type SessionOptions } from "./options.ts";

/**
 * Replaces a host name by its address, on the event loop and within `limitMs`.
 *
 * @throws {SystemError} when the name is not known.
 */
export async function resolveEndpoint(text: string, limitMs: number): Promise<string> {
  const endpoint = parseEndpoint(text);
  if (endpoint.kind === "unix" || isIP(endpoint.host) !== 0) return text;
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(
      new TimeoutError(
        "ERR_MULTIFD_TIMEOUT",
        `Cannot resolve ${endpoint.host}: no answer within ${limitMs} ms`,
      ),
    );
  }, limitMs);
  try {
    const { address } = await Promise.race([lookup(endpoint.host), late]);
    return formatEndpoint({ ...endpoint, host: address });
  } catch (error) {
    if (error instanceof TimeoutError) throw error;
    const errno = (error as NodeJS.ErrnoException).code ?? "unknown host";
    throw new SystemError(`Cannot resolve ${endpoint.host}: ${errno}`, { errno, cause: error });
  } finally {
    clearTimeout(timer);
  }
}

/** Options whose endpoint is numeric or a Unix socket; see {@linkcode resolveEndpoint}. */
export async function withAddress<Options extends SessionOptions>(
  options: Options,
): Promise<Options> {
  const { connectMs } = resolveTimeouts(options.timeouts);
  return { ...options, endpoint: await resolveEndpoint(options.endpoint, connectMs) };
}
